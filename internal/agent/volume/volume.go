package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/locks"
	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// Dir is the directory of reservations in an agent's state directory; below it FRAMEWORK/CLAIM/NAME.img and, while in
// use, NAME.
const Dir = "volumes"

const (
	imageExt = ".img"

	mountTimeout = 10 * time.Minute // for one to be made, repaired or grown
	releaseRetry = time.Second      // between attempts to delete a reservation
)

// Config holds the settings of Volumes.
type Config struct {
	Root    *os.Root // the agent's state directory
	Storage runtime.Storage
	Log     *slog.Logger

	// InUse reports whether an instance here may use a reservation. It is asked while the reservation is locked.
	InUse func(claim string) bool

	// Released is told of each reservation of which nothing is left.
	Released func(claim string)
}

// Volumes is the reservations on one machine. A reservation is named as kernel.Down.Release does: "framework/name".
type Volumes struct {
	cfg  Config
	busy locks.Table // a reservation's volumes are mounted, unmounted or deleted by one goroutine at a time

	mu      sync.Mutex
	release map[string]bool // to be deleted; guarded by mu
	look    chan struct{}   // asks Run to look at them
}

// New makes the reservations of an agent's state directory.
func New(cfg Config) *Volumes {
	return &Volumes{cfg: cfg, release: map[string]bool{}, look: make(chan struct{}, 1)}
}

// dirOf returns the directory of a reservation's volumes, below the state directory. A reservation that cannot name one
// is invalid.
func dirOf(claim string) (string, error) {
	framework, name, ok := strings.Cut(claim, "/")
	if !ok || !naming.IsFile(framework) || !naming.IsFile(name) {
		return "", fmt.Errorf("claim %.200q cannot name a directory: %w", claim, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(Dir, framework, name), nil
}

func (c *Volumes) path(dir string) string { return filepath.Join(c.cfg.Root.Name(), dir) }

// MountError is a volume that cannot be mounted.
type MountError struct {
	Volume string
	Err    error
}

func (e *MountError) Error() string { return e.Err.Error() }
func (e *MountError) Unwrap() error { return e.Err }

// Mount has the volumes of a reservation be there, and answers with where, by name. An error of one volume is a
// *MountError.
func (c *Volumes) Mount(ctx context.Context, claim string, volumes []kernel.ReservedVolume) (map[string]string, error) {
	if len(volumes) == 0 {
		return nil, nil
	}
	defer c.busy.Lock(claim)()
	dir, err := dirOf(claim)
	if err == nil {
		err = c.cfg.Root.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = durable.In(c.cfg.Root).Sweep(dir) // images that were being made when an agent ended
	}
	_, name, _ := strings.Cut(claim, "/")
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", name, err)
	}
	out := make(map[string]string, len(volumes))
	for _, v := range volumes {
		if !naming.IsFile(v.Name) {
			return nil, fmt.Errorf("volume %.200q cannot name a file: %w", v.Name, errdefs.ErrInvalidArgument)
		}
		at := filepath.Join(c.path(dir), v.Name)
		ctx, cancel := context.WithTimeout(ctx, mountTimeout)
		err := c.cfg.Storage.MountVolume(ctx, at+imageExt, at, v.Bytes)
		cancel()
		if err != nil {
			return nil, &MountError{v.Name, fmt.Errorf("volume %s of claim %s: %w", v.Name, name, err)}
		}
		out[v.Name] = at
	}
	return out, nil
}

// Unmount takes the volumes of a reservation from where they were mounted; their content stays. What is not mounted is
// no error.
func (c *Volumes) Unmount(ctx context.Context, claim string) error {
	dir, err := dirOf(claim)
	if err != nil {
		return nil //nolint:nilerr // none was mounted
	}
	defer c.busy.Lock(claim)()
	return UnmountBelow(ctx, c.cfg.Storage, c.path(dir))
}

// UnmountBelow takes away all that is mounted below a directory.
func UnmountBelow(ctx context.Context, s runtime.Storage, dir string) error {
	mounted, err := s.Mounted(ctx, dir)
	errs := []error{err}
	for _, at := range mounted {
		errs = append(errs, s.Unmount(ctx, at))
	}
	return errors.Join(errs...)
}

// UnmountUnknown takes away what is mounted for reservations that nobody uses.
func (c *Volumes) UnmountUnknown(ctx context.Context) error {
	top := c.path(Dir)
	mounted, err := c.cfg.Storage.Mounted(ctx, top)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range mounted {
		claim, err := filepath.Rel(top, filepath.Dir(at))
		if err != nil || c.cfg.InUse(claim) {
			continue
		}
		errs = append(errs, func() error {
			defer c.busy.Lock(claim)()
			if c.cfg.InUse(claim) { // an instance that began meanwhile is there before it mounts
				return nil
			}
			c.cfg.Log.Warn("volume that nobody uses is unmounted", "claim", claim)
			return UnmountBelow(ctx, c.cfg.Storage, filepath.Dir(at))
		}())
	}
	return errors.Join(errs...)
}

// Release has reservations be deleted by Run, each as soon as nobody uses it.
func (c *Volumes) Release(claims []string) {
	if len(claims) == 0 {
		return
	}
	c.mu.Lock()
	for _, name := range claims {
		c.release[name] = true
	}
	c.mu.Unlock()
	c.Look()
}

// Look has Run look again: somebody who used a reservation is gone.
func (c *Volumes) Look() {
	select {
	case c.look <- struct{}{}:
	default:
	}
}

// Run deletes the reservations that are released until ctx ends.
func (c *Volumes) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.look:
		}
		c.mu.Lock()
		var todo []string
		for name := range c.release {
			todo = append(todo, name)
		}
		c.mu.Unlock()
		slices.Sort(todo)
		failed := false
		for _, name := range todo {
			done, err := c.remove(ctx, name)
			if err != nil && ctx.Err() == nil {
				c.cfg.Log.Error("claim cannot be deleted, trying again", "claim", name, "err", err)
				failed = true
			}
			if done {
				c.mu.Lock()
				delete(c.release, name)
				c.mu.Unlock()
				c.cfg.Released(name)
			}
		}
		if failed && retry.Pause(ctx, releaseRetry) {
			c.Look()
		}
	}
}

// remove deletes a reservation's volumes, unless an instance uses them. A reservation that was never here is done.
func (c *Volumes) remove(ctx context.Context, claim string) (done bool, err error) {
	dir, err := dirOf(claim)
	if err != nil {
		c.cfg.Log.Warn("claim that cannot be here is told as released", "claim", claim, "err", err)
		return true, nil
	}
	defer c.busy.Lock(claim)()
	if c.cfg.InUse(claim) {
		return false, nil // its end asks again
	}
	if _, err := c.cfg.Root.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err := UnmountBelow(ctx, c.cfg.Storage, c.path(dir)); err != nil {
		return false, err
	}
	if err := c.cfg.Root.RemoveAll(dir); err != nil {
		return false, fmt.Errorf("claim %s: %w", claim, err)
	}
	_ = c.cfg.Root.Remove(filepath.Dir(dir)) // not while the framework has others
	c.cfg.Log.Info("claim deleted", "claim", claim)
	return true, nil
}
