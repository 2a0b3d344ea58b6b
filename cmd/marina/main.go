// Command marina is the one binary: the command line, the daemon and the agent.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/daemon"
	"github.com/marinaos/marina/internal/kernel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	daemon.Version = cli.Version
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Programs{
		Build: daemon.Build,
		Preflight: func(ctx context.Context, s cli.Settings) []kernel.Finding {
			return daemon.Preflight(ctx, daemon.Config(s))
		},
		Running: func(s cli.Settings) bool { return daemon.Running(daemon.Config(s)) },
		Daemon:  func(ctx context.Context, s cli.Settings) error { return daemon.Run(ctx, daemon.Config(s)) },
		Agent:   func(ctx context.Context, s cli.Settings) error { return daemon.RunAgent(ctx, daemon.Config(s)) },
		Down: func(ctx context.Context, s cli.Settings, w io.Writer) error {
			return daemon.Down(ctx, daemon.Config(s), w)
		},
		Clean: func(ctx context.Context, s cli.Settings, w io.Writer) error {
			return daemon.Clean(ctx, daemon.Config(s), w)
		},
	})
	stop()
	os.Exit(code)
}
