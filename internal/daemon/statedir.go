package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path of a unix socket, in bytes.
const maxSocketPath = 107

// early lists what a start that failed at once leaves in a state directory, and what a filesystem has of its own.
var early = []string{"log", "run", "settings.json", "lost+found"}

// checkState refuses a state directory that cannot be one, with errdefs.ErrFailedPrecondition: one whose path is too
// long, and one that is somebody else's. What is in a state directory is removed by `marina down --clean-state`, so it
// must be ours alone.
func (c *config) checkState() error {
	if len(c.socket()) > maxSocketPath {
		return fmt.Errorf("state directory %s: its path has more than %d bytes, which the sockets in it do not allow: %w",
			c.State, maxSocketPath-len(c.socket())+len(c.State), errdefs.ErrFailedPrecondition)
	}
	for _, mark := range []string{c.datacenterFile(), c.rootKey(), c.daemonPID()} {
		if _, err := os.Lstat(mark); err == nil {
			return nil
		}
	}
	found, err := os.ReadDir(c.State)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, f := range found {
		if !slices.Contains(early, f.Name()) {
			return fmt.Errorf("%s is no datacenter's state directory and is not empty (it has %s): name an empty or new one "+
				"by MARINA_STATE: %w",
				c.State, f.Name(), errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// removeState removes what is in the state directory, the locks last, and the directory unless something is mounted
// there.
func (c *config) removeState() error {
	found, err := os.ReadDir(c.State)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Name() == "run" || f.Name() == "lost+found" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.State, f.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.path("run")); err != nil {
		return err
	}
	if err := os.Remove(c.State); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) &&
		!errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
