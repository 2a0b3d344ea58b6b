package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/scheduler"
)

// Bounds of programs that are run in nodes. What they say is the node's word, and whoever is root there says what
// they like.
const (
	execLimit = 10 * time.Minute
	maxSaid   = 64 << 10 // bytes kept of what a program says, the last ones
)

// importer has the containerds of nodes import archives.
type importer struct {
	exec Exec
	log  *slog.Logger
}

// errArchive marks the fault of an archive, whichever node it is loaded into.
var errArchive = errors.New("archive")

// load imports an archive into one node and returns its images' names.
func (i *importer) load(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names archive.Names
	if p := scheduler.Catch(func() { names, err = archive.NamesOf(f) }); p != nil { // it was uploaded: it may be anything
		i.log.Error("image archive: panic", "file", file, "panic", p.Value, "stack", string(p.Stack))
		err = invalid("the image archive cannot be read")
	}
	if err != nil {
		return nil, badArchive{err}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := i.ctr(ctx, agent, task, f, "import", "-"); err != nil {
		return nil, err
	}
	for _, raw := range sortedKeys(names) {
		if full := names[raw]; raw != full { // "hello:1" is docker.io/library/hello:1 to everybody but the archive
			err := i.ctr(ctx, agent, task, nil, "tag", "--force", raw, full)
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
func (i *importer) ctr(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, in io.Reader,
	args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, execLimit,
		fmt.Errorf("node %s did not import it within %v: %w", task, execLimit, errdefs.ErrUnavailable))
	defer cancel()
	var out tail
	argv := append([]string{kernel.BundleTarget + "/runtime/ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io",
		"images"}, args...)
	code, err := i.exec(ctx, agent, task, argv, in, &out)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("image archive: %w", cause)
	}
	if err != nil {
		return fmt.Errorf("image archive: node %s: %w", task, err)
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
