package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// mounts is the directory of notes about mounts: a link of a name of its own to each place.
func (r *Runtime) mounts() string { return filepath.Join(r.dir, ".mounts") }

func (r *Runtime) note(at string) string {
	return filepath.Join(r.mounts(), strings.ReplaceAll(strings.TrimPrefix(at, "/"), "/", "%"))
}

func (r *Runtime) noted(at string) error {
	if err := os.MkdirAll(r.mounts(), 0o700); err != nil {
		return err
	}
	if err := os.Symlink(at, r.note(at)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// MountVolume has at be a link to the directory image. A file there is a volume beyond repair.
func (r *Runtime) MountVolume(_ context.Context, image, at string, _ int64) error {
	if i, err := os.Stat(image); err == nil && !i.IsDir() {
		return fmt.Errorf("%s is not a directory: %w", image, errdefs.ErrDataLoss)
	}
	if err := os.MkdirAll(image, 0o777); err != nil {
		return err
	}
	if err := r.noted(at); err != nil {
		return err
	}
	if err := os.Symlink(image, at); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// MountMemory makes a directory.
func (r *Runtime) MountMemory(_ context.Context, at string, _ int64, _ uint32) error {
	if err := r.noted(at); err != nil {
		return err
	}
	return os.MkdirAll(at, 0o700)
}

// Unmount removes the link, or the directory with what is in it.
func (r *Runtime) Unmount(_ context.Context, at string) error {
	if _, err := os.Lstat(r.note(at)); err != nil {
		return nil //nolint:nilerr // it is not mounted
	}
	return errors.Join(os.RemoveAll(at), os.Remove(r.note(at))) // of a link, RemoveAll removes the link
}

// Mounted lists what was noted.
func (r *Runtime) Mounted(_ context.Context, below string) ([]string, error) {
	entries, err := os.ReadDir(r.mounts())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if at, err := os.Readlink(filepath.Join(r.mounts(), e.Name())); err == nil && strings.HasPrefix(at, below+"/") {
			out = append(out, at)
		}
	}
	return out, nil
}

// IDs is none: processes are the machine's.
func (r *Runtime) IDs() kernel.IDRange { return kernel.IDRange{} }

// Update notes the limits in the container, which nothing enforces.
func (r *Runtime) Update(_ context.Context, id string, l runtime.Limits) error {
	c, err := r.load(id)
	if err != nil {
		return err
	}
	c.MilliCPU, c.CPULimit, c.MemLimit = l.MilliCPU, l.CPULimit, l.MemLimit
	return r.store(id, c)
}
