package datacenter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kernel"
)

func (l *local) daemonCommand() *cobra.Command {
	return l.settingsFlags(&cobra.Command{Use: "daemon", Short: "Run a datacenter in the foreground (what up starts)",
		Hidden: true,
		Args:   command.Exactly(0), RunE: func(c *cobra.Command, _ []string) error {
			if err := l.remember(); err != nil {
				return err
			}
			return l.programs.Daemon(c.Context(), l.settings)
		}})
}

func (l *local) agentCommand() *cobra.Command {
	return l.settingsFlags(&cobra.Command{Use: "agent",
		Short: "Run a machine's agent in the foreground (what the daemon starts)", Hidden: true,
		Args: command.Exactly(0), RunE: func(c *cobra.Command,
			_ []string) error {
			return l.programs.Agent(c.Context(), l.settings)
		}})
}

func (l *local) upCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "up", Short: "Start the datacenter on this machine", Args: command.Exactly(0),
		Long: "Checks the machine, starts the datacenter in the background and waits until it is well. Harmless when it " +
			"runs already;\n" +
			"after an update of the binary it restarts the datacenter's own processes, and no task notices.",
		RunE: func(c *cobra.Command, _ []string) error { return l.up(c.Context(), force) }}
	c.Flags().BoolVar(&force, "force", false, "start although a check of the machine says it will not work")
	return l.settingsFlags(c)
}

func (l *local) up(ctx context.Context, force bool) error {
	p := l.Progress()
	now, err := l.Info(ctx)
	running := err == nil
	if running && now.Build == l.programs.Build() && !l.changed {
		p.Show("The datacenter runs already.")
		p.Done()
		return l.ready(ctx, p, nil)
	}
	switch {
	case !running && l.programs.Running(l.settings):
		return l.ready(ctx, p, nil) // somebody starts it now
	case !running:
		if err := l.preflight(ctx, force); err != nil {
			return err
		}
	default:
		p.Show("A new version or other settings: restarting the datacenter's processes, tasks go on.")
		p.Done()
		if err := l.end(ctx, now.PID); err != nil {
			return err
		}
	}
	if err := l.remember(); err != nil {
		return err
	}
	ended, err := l.spawn()
	if err != nil {
		return err
	}
	return l.ready(ctx, p, ended)
}

// preflight prints what the machine's checks found; a fatal finding ends it.
func (l *local) preflight(ctx context.Context, force bool) error {
	var fatal int
	for _, f := range l.programs.Preflight(ctx, l.settings) {
		mark := map[kernel.Severity]string{kernel.Good: "ok", kernel.Warning: "!!", kernel.Fatal: "NO"}[f.Severity]
		if !l.Quiet || f.Severity != kernel.Good {
			fmt.Fprintf(l.Err, "  %s  %s\n", mark, output.Clean(f.What))
			if f.Do != "" {
				fmt.Fprintf(l.Err, "      %s\n", output.Clean(f.Do))
			}
		}
		if f.Severity == kernel.Fatal {
			fatal++
		}
	}
	if fatal > 0 && !force {
		return &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("this machine is not ready: %d checks failed", fatal),
			Next: "what stands under each NO, then marina up again (or --force)"}
	}
	return nil
}

// maxLog is the size from which the daemon's log is rotated at its start; the one before it is kept.
const maxLog = 8 << 20

// spawn starts the daemon in the background, with the settings that were remembered. ended is closed when it ends while
// this command runs.
func (l *local) spawn() (ended <-chan struct{}, err error) {
	logs := filepath.Join(l.settings.State, "log")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("state directory: %v", err),
			Next: "run as root, or set MARINA_STATE"}
	}
	if fi, err := os.Stat(daemonLog(l.settings.State)); err == nil && fi.Size() > maxLog {
		if err := os.Rename(daemonLog(l.settings.State), daemonLog(l.settings.State)+".1"); err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
	}
	f, err := os.OpenFile(daemonLog(l.settings.State), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "daemon", "--state", l.settings.State)
	cmd.Stdout, cmd.Stderr, cmd.Dir = f, f, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	done := make(chan struct{})
	go func() { // ends with the daemon or this command
		defer close(done)
		_ = cmd.Wait()
	}()
	return done, nil
}

// startLimit bounds the wait for a datacenter to become well.
const startLimit = 60 * time.Second

// ready waits until the datacenter is well and says where it is. Once the daemon has ended, and no other runs, it waits
// no more.
func (l *local) ready(ctx context.Context, p *output.Progress, ended <-chan struct{}) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var last client.Info
	for {
		now, err := l.Info(ctx)
		if err == nil {
			last = now
		}
		if err == nil && now.Healthy {
			p.Show("The datacenter is up (%.1f s).", time.Since(begin).Seconds())
			p.Done()
			return l.where(now)
		}
		var waits []string
		for _, u := range last.Units {
			if !u.Healthy {
				waits = append(waits, u.Name+": "+strings.ReplaceAll(u.Output, "\n", "; "))
			}
		}
		p.Show("starting: %s", cmp.Or(strings.Join(waits, "; "), "daemon"))
		select {
		case <-ctx.Done():
			p.Done()
			return &exit.Error{Code: exit.Timeout, Message: "the datacenter did not become well in time\n" + l.tail(20),
				Next: "less " + daemonLog(l.settings.State)}
		case <-ended:
			if ended = nil; !l.programs.Running(l.settings) {
				p.Done()
				return &exit.Error{Code: exit.Failed, Message: "the daemon ended at once\n" + l.tail(5),
					Next: "less " + daemonLog(l.settings.State)}
			}
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func (l *local) where(now client.Info) error {
	if l.Quiet {
		return nil
	}
	l.Fields("gateway", now.URL, "on this machine", now.HTTP, "name server", now.Resolver, "state", now.State, "log",
		daemonLog(l.settings.State))
	for _, u := range now.Units {
		if u.Healthy {
			continue
		}
		for line := range strings.Lines(u.Output) {
			fmt.Fprintf(l.Err, "  !!  %s: %s\n", u.Name, output.Clean(strings.TrimSpace(line)))
		}
	}
	return nil
}

// tail is the end of the daemon's log.
func (l *local) tail(n int) string {
	b, err := os.ReadFile(daemonLog(l.settings.State))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-n):], "\n  ")
}

// end asks a process to end and waits until it has.
func (l *local) end(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("daemon %d: %w", pid, err)
	}
	limit := time.After(20 * time.Second)
	for l.programs.Running(l.settings) { // not by its number: a dead process that nobody waited for keeps that
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return &exit.Error{Code: exit.Timeout, Message: fmt.Sprintf("the daemon (process %d) does not end", pid),
				Next: fmt.Sprintf("kill -9 %d", pid)}
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
