package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// killAgain is the time in which killed processes must be gone.
const killAgain = 10 * time.Millisecond

// Tree is the cgroups of a datacenter on this machine. Make it with Open.
type Tree struct {
	root    string            // "/marina-INSTANCE"
	at      map[string]string // where hierarchies are mounted, by controller; that of cgroup v2 is ""
	unified bool              // cgroup v2

	mu     sync.Mutex
	making map[string]int // groups being made, by their parent: it may not be removed then. Guarded by mu
}

// Open returns the tree at root, "/marina-INSTANCE". It makes nothing: runc makes groups.
func Open(root string) (*Tree, error) {
	at, err := hierarchies()
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	return &Tree{root: root, at: at, unified: cgroups.Mode() == cgroups.Unified, making: map[string]int{}}, nil
}

// hierarchies returns where cgroups are mounted, by controller; cgroup v2 is "". It is asked once: what a machine
// mounts there does not change while it runs, and its list of mounts grows with its containers.
var hierarchies = sync.OnceValues(func() (map[string]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			out[""] = m.Mountpoint
			continue
		}
		for _, opt := range strings.Split(m.VFSOptions, ",") {
			if opt != "rw" && opt != "ro" {
				out[opt] = m.Mountpoint
			}
		}
	}
	return out, nil
})

// Path returns the cgroup at rel below the tree's root; errdefs.ErrInvalidArgument if rel is not a clean relative path
// that stays below it.
func (t *Tree) Path(rel string) (string, error) {
	if !filepath.IsLocal(rel) || path.Clean(rel) != rel || rel == "." {
		return "", fmt.Errorf("cgroup %q leaves the datacenter's: %w", rel, errdefs.ErrInvalidArgument)
	}
	return path.Join(t.root, rel), nil
}

// Has reports whether a cgroup is one of this tree.
func (t *Tree) Has(cgroup string) bool { return strings.HasPrefix(cgroup, t.root+"/") }

// Dirs lists where the cgroup is, or would be, in each hierarchy; "" is the root of the tree.
func (t *Tree) Dirs(cgroup string) []string {
	if cgroup == "" {
		cgroup = t.root
	}
	var out []string
	for _, mount := range t.at {
		out = append(out, filepath.Join(mount, cgroup))
	}
	return out
}

// CountsSwap reports whether a limit for memory and swap together can be set.
func (t *Tree) CountsSwap() bool {
	if t.unified {
		return true
	}
	_, err := os.Stat(t.Group("/").path("memory", "memory.memsw.limit_in_bytes"))
	return err == nil
}

// Make says that a cgroup is being made, until done is called: Prune leaves its parents.
func (t *Tree) Make(cgroup string) (done func()) {
	parent := path.Dir(cgroup)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.making[parent]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.making[parent]--; t.making[parent] == 0 {
			delete(t.making, parent)
		}
	}
}

// Prune removes the empty parents that a cgroup leaves, up to the tree's root, unless another one is being made there.
func (t *Tree) Prune(cgroup string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for parent := path.Dir(cgroup); parent != t.root && len(parent) > 1; parent = path.Dir(parent) {
		if t.making[parent] > 0 {
			return nil
		}
		busy := false
		for _, dir := range t.Dirs(parent) {
			err := os.Remove(dir)
			if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
				busy = true
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cgroup %s: %w", parent, err)
			}
		}
		if busy {
			return nil
		}
	}
	return nil
}

// delegated are the files of a cgroup that make it its owner's to divide. The others are limits, and stay the
// machine's.
var delegated = []string{".", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"}

// Delegate gives a cgroup to a user of the machine to divide, in every hierarchy there is.
func (t *Tree) Delegate(cgroup string, owner int) error {
	for _, dir := range t.Dirs(cgroup) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue // one that runc knows nothing of
		}
		for _, f := range delegated {
			if err := os.Chown(filepath.Join(dir, f), owner, owner); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cgroup %s: %w", dir, err)
			}
		}
	}
	return nil
}

// Remove kills what is in a cgroup and below it, and removes it, in every hierarchy; "" is all of the tree. When ctx
// ends with processes left the error says how many, and it can be repeated.
func (t *Tree) Remove(ctx context.Context, cgroup string) error {
	trees := t.Dirs(cgroup)
	if err := killTrees(ctx, trees); err != nil {
		return err
	}
	var errs []error
	for _, tree := range trees {
		errs = append(errs, removeTree(tree))
	}
	return errors.Join(errs...)
}

// killTrees kills until no process is left: one that was about to start may appear after the first look.
func killTrees(ctx context.Context, trees []string) error {
	for {
		left := 0
		for _, tree := range trees {
			err := filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) || (err == nil && !d.IsDir()) {
					return nil
				}
				if err != nil {
					return err
				}
				n, err := signalAll(filepath.Join(p, "cgroup.procs"), 0, unix.SIGKILL)
				left += n
				return err
			})
			if err != nil {
				return err
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes do not die: %w", left, ctx.Err())
		case <-time.After(killAgain):
		}
	}
}

func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Remove(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cgroup %s: %w", dirs[i], err)
		}
	}
	return nil
}
