package supply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/scheduler"
)

// Bounds of programs that are run in nodes. What they say is the node's word, and whoever is root there says what
// they like.
const (
	execLimit = 10 * time.Minute
	maxSaid   = 64 << 10 // bytes kept of what a program says, the last ones
)

// Exec runs a program in a task and returns its exit code; what it says on either stream goes to out.
type Exec = func(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, argv []string,
	in io.Reader, out io.Writer) (int, error)

// errArchive marks the fault of an archive, whichever node it is loaded into.
var errArchive = errors.New("archive")

// Import has one node import the archive in a file, and returns its images' names.
func (s *Supplier) Import(ctx context.Context, node core.Node, file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names archive.Names
	if p := scheduler.Catch(func() { names, err = archive.NamesOf(f) }); p != nil { // it was uploaded: it may be anything
		s.cfg.Log.Error("image archive: panic", "file", file, "panic", p.Value, "stack", string(p.Stack))
		err = fmt.Errorf("the image archive cannot be read: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, badArchive{err}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := s.ctr(ctx, node, f, "import", "-"); err != nil {
		return nil, err
	}
	for _, raw := range slices.Sorted(maps.Keys(names)) {
		if full := names[raw]; raw != full { // "hello:1" is docker.io/library/hello:1 to everybody but the archive
			err := s.ctr(ctx, node, nil, "tag", "--force", raw, full)
			if err != nil && !strings.Contains(err.Error(), "not found") {
				return nil, err
			}
		}
	}
	return names.Complete(), nil
}

// badArchive is an error that is the archive's fault; it reads as what it holds.
type badArchive struct{ error }

func (b badArchive) Unwrap() []error { return []error{b.error, errArchive} }

// ctr has a node's containerd do something with images.
func (s *Supplier) ctr(ctx context.Context, node core.Node, in io.Reader, args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, execLimit,
		fmt.Errorf("node %s did not import it within %v: %w", node.Task, execLimit, errdefs.ErrUnavailable))
	defer cancel()
	var out tail
	argv := append([]string{kernel.BundleTarget + "/runtime/ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io",
		"images"}, args...)
	code, err := s.cfg.Exec(ctx, node.Agent, node.Task, argv, in, &out)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("image archive: %w", cause)
	}
	if err != nil {
		return fmt.Errorf("image archive: node %s: %w", node.Task, err)
	}
	if code != 0 {
		said := strings.Split(strings.TrimSpace(string(out.kept)), "\n")
		return fmt.Errorf("the image could not be imported: %.300s: %w", said[len(said)-1], errdefs.ErrInvalidArgument)
	}
	return nil
}

// tail keeps the end of what is written: at least the last maxSaid bytes, at most twice as many.
type tail struct{ kept []byte }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	end := p[max(0, len(p)-maxSaid):]
	if len(t.kept)+len(end) > 2*maxSaid {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-maxSaid:]...)
	}
	t.kept = append(t.kept, end...)
	return len(p), nil
}
