package sandbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/agent/locks"
	"github.com/marinaos/marina/internal/kernel"
)

// Root is the directory of sandboxes in an agent's state directory, each by its task's name.
const Root = "sandboxes"

// Trash is the directory, in an agent's state directory, for things that a task may have made too large to remove at
// once.
const Trash = "trash"

// MaxFiles bounds the files and directories of one sandbox, and those of it that are looked at.
const MaxFiles = 1_000_000

// Dir is the sandboxes of one machine's tasks. Its methods are safe for concurrent use.
type Dir struct {
	root   *os.Root    // the agent's state directory
	moving locks.Table // by task: held alone while the files of its output are moved
	most   int64       // MaxFiles
}

// Use is a sandbox's share of the disk.
type Use struct {
	Bytes int64 // on the disk: a hole takes nothing
	Files int64 // and directories; at MaxFiles there may be more of both
}

// In is the sandboxes in an agent's state directory, which stays the caller's.
func In(root *os.Root) *Dir { return &Dir{root: root, most: MaxFiles} }

// Path is a task's sandbox, whether it is there or not.
func (d *Dir) Path(task kernel.TaskID) string {
	return filepath.Join(d.root.Name(), Root, string(task))
}

// Open opens a task's sandbox. One that is not there is fs.ErrNotExist.
func (d *Dir) Open(task kernel.TaskID) (*os.Root, error) {
	return d.root.OpenRoot(path.Join(Root, string(task)))
}

// Make makes a task's sandbox, with the files for its output and the directories that its volumes have there; what is
// there is kept.
func (d *Dir) Make(task kernel.TaskID, volumes []kernel.Volume) error {
	at := path.Join(Root, string(task))
	if err := d.root.MkdirAll(at, 0o755); err != nil {
		return err
	}
	// A task may be any user, also one mapped from a user namespace. The directory above is open to nobody else, and the
	// sticky bit keeps its output files.
	if err := d.root.Chmod(at, 0o777|fs.ModeSticky); err != nil {
		return err
	}
	for _, name := range []string{"stdout", "stderr"} {
		f, err := d.root.OpenFile(path.Join(at, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	for _, v := range volumes {
		if v.HostPath != "" && filepath.IsLocal(v.HostPath) {
			if err := d.root.MkdirAll(path.Join(at, filepath.Clean(v.HostPath)), 0o777); err != nil {
				return err
			}
		}
	}
	return nil
}

// End marks a task's sandbox as that of one that ended now, from when its age counts. One that is not there is left so.
func (d *Dir) End(task kernel.TaskID) {
	now := time.Now()
	_ = d.root.Chtimes(path.Join(Root, string(task)), now, now)
}

// OpenInside opens a file without blocking on a pipe. Whatever is wrong beside the file not being there is a way out of
// the sandbox, and forbidden.
func OpenInside(root *os.Root, name string, flag int) (*os.File, error) {
	f, err := root.OpenFile(name, flag|unix.O_NONBLOCK, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s leads out of the task's sandbox or cannot be opened in it: %w: %w", name,
			errdefs.ErrPermissionDenied, err)
	}
	return f, err
}

// discard removes what a task may have put in place of a file. A directory is only put aside, whatever is in it;
// Collect removes it.
func (d *Dir) discard(task kernel.TaskID, name string) error {
	at := path.Join(Root, string(task), name)
	i, err := d.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !i.IsDir() {
		return d.root.Remove(at)
	}
	if err := d.root.MkdirAll(Trash, 0o700); err != nil {
		return err
	}
	return d.root.Rename(at, path.Join(Trash, rand.Text()))
}

// empty removes what discard put aside.
func (d *Dir) empty() error {
	entries, err := fs.ReadDir(d.root.FS(), Trash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, d.root.RemoveAll(path.Join(Trash, e.Name())))
	}
	return errors.Join(errs...)
}

// Usage measures a sandbox's share of the disk. Links are not followed, files with several names count once, and
// what is mounted inside does not count.
func (d *Dir) Usage(task kernel.TaskID) (u Use, err error) {
	sub, err := d.Open(task)
	if err != nil {
		return Use{}, err
	}
	defer sub.Close()
	var device uint64
	seen := map[uint64]bool{}
	err = fs.WalkDir(sub.FS(), ".", func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile, or unreadable: what can be read counts
		}
		if u.Files >= d.most {
			return fs.SkipAll
		}
		u.Files++
		i, err := e.Info()
		if err != nil {
			return nil
		}
		s, ok := i.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if device == 0 {
			device = s.Dev
		}
		if s.Dev != device {
			return fs.SkipDir
		}
		if s.Nlink > 1 && !e.IsDir() {
			if seen[s.Ino] {
				return nil
			}
			seen[s.Ino] = true
		}
		u.Bytes += s.Blocks * 512
		return nil
	})
	return u, err
}

// Collect removes the sandboxes of tasks that are not live and that the limits do not keep, and names those. free is
// how many bytes the disk has left.
func (d *Dir) Collect(live map[kernel.TaskID]bool, l Limits, free int64) (removed []string, err error) {
	entries, err := fs.ReadDir(d.root.FS(), Root)
	if err != nil {
		return nil, fmt.Errorf("sandboxes: %w", err)
	}
	var ended []box
	for _, e := range entries {
		if live[kernel.TaskID(e.Name())] {
			continue
		}
		if i, err := e.Info(); err == nil {
			ended = append(ended, box{name: e.Name(), ended: i.ModTime()})
		}
	}
	if free < l.Free { // only then do their sizes matter
		for i := range ended {
			u, _ := d.Usage(kernel.TaskID(ended[i].name))
			ended[i].bytes = u.Bytes
		}
	}
	errs := []error{d.empty()}
	for _, name := range decide(l, ended, time.Now(), free) {
		if err := d.root.RemoveAll(path.Join(Root, name)); err != nil {
			errs = append(errs, fmt.Errorf("sandbox %s: %w", name, err))
			continue
		}
		removed = append(removed, name)
	}
	return removed, errors.Join(errs...)
}
