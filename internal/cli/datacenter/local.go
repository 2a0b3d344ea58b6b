package datacenter

import (
	"context"
	"io"
	"path/filepath"

	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/settings"
)

// Programs holds main's implementations of the verbs that run inside a datacenter's own processes.
type Programs struct {
	Preflight func(context.Context, settings.Datacenter) []kernel.Finding
	Running   func(settings.Datacenter) bool                              // a daemon lives on the state directory
	Daemon    func(context.Context, settings.Datacenter) error            // runs until ctx ends
	Agent     func(context.Context, settings.Datacenter) error            // runs until ctx ends
	Down      func(context.Context, settings.Datacenter, io.Writer) error // stops every task and process, keeps the state
	Clean     func(context.Context, settings.Datacenter, io.Writer) error // Down, and removes the state
	Build     func() string                                               // names this binary by its content
}

// local is a verb over the datacenter of this machine, with the settings that it is started with.
type local struct {
	*command.Env
	programs Programs
	settings settings.Datacenter
	said     map[string][]string // settings that are not the defaults, by flag
	changed  bool                // they are not those of the last start
}

func newLocal(e *command.Env, p Programs) *local { return &local{Env: e, programs: p} }

// daemonLog names the log of a state directory's daemon.
func daemonLog(state string) string { return filepath.Join(state, "log", "daemon.log") }
