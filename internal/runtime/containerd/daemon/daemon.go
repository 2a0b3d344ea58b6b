package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/machine"
)

const (
	answerTimeout = 30 * time.Second // from a containerd's start to its first answer
	minBackoff    = 100 * time.Millisecond
	maxBackoff    = 5 * time.Second
	steadyAfter   = 5 * time.Second // a containerd that lived so long is restarted without backoff
	maxLog        = 8 << 20         // bytes of its log kept when it starts, once more as .old
)

// Daemon is the containerd of a datacenter. Make it with New. Run, Start and Stop are not called at the same time.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	ask     Ask
	version string // of the private containerd; "" with an external one
}

// Ask asks the containerd at the socket for its version, and waits for its answer until ctx ends.
type Ask func(ctx context.Context) (version string, err error)

// New checks the programs of the bundle and starts nothing. One that is missing or has known ways out of a container is
// errdefs.ErrFailedPrecondition.
func New(ctx context.Context, cfg Config, ask Ask, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{cfg: cfg, log: log, ask: ask}
	if _, err := Version(ctx, cfg.Bin, "runc"); err != nil {
		return nil, err
	}
	if cfg.External {
		return d, nil
	}
	var err error
	d.version, err = Version(ctx, cfg.Bin, "containerd")
	return d, err
}

// Run keeps the private containerd running until ctx ends, and leaves it running then; ready is called each time that
// it answers. Of an external one it checks the version and then only waits. It returns nil when ctx ended.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	if d.cfg.External {
		return d.await(ctx, ready)
	}
	backoff := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		p, err := d.ensure(ctx)
		if err == nil {
			ready()
			if err = p.wait(ctx); err == nil {
				err = fmt.Errorf("containerd %d ended: %w", p.pid, errdefs.ErrUnavailable)
			}
			p.pidfd.Close()
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steadyAfter {
			backoff = minBackoff
		}
		d.log.Error("containerd is to be started again", "err", err, "in", backoff, "log", d.cfg.Log)
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// await checks that somebody else's containerd is one we may use.
func (d *Daemon) await(ctx context.Context, ready func()) error {
	for ctx.Err() == nil {
		v, err := d.ask(ctx)
		if err == nil {
			if err := CheckFloor("containerd", v); err != nil {
				return err
			}
			ready()
			<-ctx.Done()
			return nil
		}
		d.log.Error("containerd does not answer", "socket", d.cfg.Socket, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(maxBackoff):
		}
	}
	return nil
}

// Start makes sure that the private containerd runs and answers, and leaves it. An external one is left alone.
func (d *Daemon) Start(ctx context.Context) error {
	if d.cfg.External {
		return nil
	}
	p, err := d.ensure(ctx)
	if err != nil {
		return err
	}
	return p.pidfd.Close()
}

// Stop ends the private containerd, if it runs; its containers go on. An external one is left alone.
func (d *Daemon) Stop(ctx context.Context) error {
	if d.cfg.External {
		return nil
	}
	p, err := d.adopt()
	if err != nil || p == nil {
		return err
	}
	defer p.pidfd.Close()
	return p.stop(ctx)
}

// PID is that of the private containerd; 0 while none runs.
func (d *Daemon) PID() (int, error) {
	p, err := d.adopt()
	if err != nil || p == nil {
		return 0, err
	}
	return p.pid, p.pidfd.Close()
}

// ensure returns a containerd that answers: the one that runs, if it has our version and configuration, else a new one.
func (d *Daemon) ensure(ctx context.Context) (*process, error) {
	want, err := d.cfg.settings()
	if err != nil {
		return nil, err
	}
	have, err := os.ReadFile(d.cfg.File)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	p, err := d.adopt()
	if err != nil {
		return nil, err
	}
	if p != nil {
		why := "its configuration changed"
		if bytes.Equal(want, have) {
			if why = d.unfit(ctx, p); why == "" {
				d.log.Info("containerd adopted", "pid", p.pid)
				return p, nil
			}
		}
		if ctx.Err() != nil {
			p.pidfd.Close()
			return nil, ctx.Err()
		}
		d.log.Info("containerd replaced", "pid", p.pid, "why", why)
		err := p.stop(ctx)
		p.pidfd.Close()
		if err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(d.cfg.File, want, 0o600); err != nil {
		return nil, err
	}
	if p, err = d.start(); err != nil {
		return nil, err
	}
	if why := d.unfit(ctx, p); why != "" {
		err := fmt.Errorf("containerd %d: %s; its log is %s: %w", p.pid, why, d.cfg.Log, errdefs.ErrUnavailable)
		p.stop(context.WithoutCancel(ctx))
		p.pidfd.Close()
		return nil, err
	}
	d.log.Info("containerd started", "pid", p.pid, "version", d.version)
	return p, nil
}

// unfit says why the containerd behind the socket is not to be used; "" if it is.
func (d *Daemon) unfit(ctx context.Context, p *process) string {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	var ended sync.WaitGroup
	defer ended.Wait()
	defer cancel()
	ended.Go(func() {
		if p.wait(ctx) == nil {
			cancel()
		}
	})
	v, err := d.ask(ctx)
	if err != nil {
		return "no answer: " + err.Error()
	}
	if m := versionWord.FindStringSubmatch(v); m == nil || (d.version != "" && m[1] != d.version) {
		return fmt.Sprintf("version %s runs, %s is to", v, d.version)
	}
	return ""
}

// adopt returns the running containerd that was started with our configuration file, or nil. It is found by its command
// line and not by a file, so that an agent that died between starting it and noting it loses nothing.
func (d *Daemon) adopt() (*process, error) {
	ours := func(line []byte) bool {
		return bytes.HasSuffix(line, []byte("\x00--config\x00"+d.cfg.File+"\x00"))
	}
	pids, err := processes(ours)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		p, err := watch(pid)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("containerd %d: %w", pid, err)
		}
		if line, err := machine.CommandLine(pid); err == nil && ours(line) {
			return p, nil
		}
		p.pidfd.Close() // it ended, and its number may be somebody else's
	}
	return nil, nil
}

// start runs containerd in a session of its own: it outlives the agent and no terminal's signal reaches it.
func (d *Daemon) start() (*process, error) {
	if st, err := os.Stat(d.cfg.Log); err == nil && st.Size() > maxLog {
		if err := os.Rename(d.cfg.Log, d.cfg.Log+".old"); err != nil {
			return nil, err
		}
	}
	out, err := os.OpenFile(d.cfg.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(d.cfg.Bin, "containerd"), "--config", d.cfg.File)
	cmd.Env = append(os.Environ(), "PATH="+d.cfg.Bin+":"+os.Getenv("PATH"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	p, err := watch(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	p.child = cmd
	return p, nil
}
