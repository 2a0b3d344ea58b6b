// Command marina is the one binary: the command line, the daemon and the agent.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	daemon.Version = cli.Version
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Programs{
		Preflight: daemon.Preflight,
		Running:   daemon.Running,
		Daemon:    daemon.Run,
		Agent:     daemon.RunAgent,
		Down:      daemon.Down,
		Clean:     daemon.Clean,
		Build:     daemon.Build,
	})
	stop()
	os.Exit(code)
}
