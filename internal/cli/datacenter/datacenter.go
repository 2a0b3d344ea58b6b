package datacenter

import (
	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/command"
)

// Verbs are those for people: up, down, status and login.
func Verbs(e *command.Env, p Programs) []*cobra.Command {
	return []*cobra.Command{newLocal(e, p).upCommand(), newLocal(e, p).downCommand(), status(e), login(e)}
}

// Processes are the commands that a datacenter's own processes run: daemon and agent, hidden from people.
func Processes(e *command.Env, p Programs) []*cobra.Command {
	return []*cobra.Command{newLocal(e, p).daemonCommand(), newLocal(e, p).agentCommand()}
}
