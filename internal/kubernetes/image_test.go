package kubernetes

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// tarOf is an image archive that names an image.
func tarOf(t *testing.T, name string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := fmt.Sprintf(`[{"RepoTags":[%q]}]`, name)
	if err := w.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// nodes stands in for the containerds of nodes.
type nodes struct {
	mu   sync.Mutex
	fail error               // of every import; guarded by mu
	has  map[string][]string // tasks' images, as archives name them; guarded by mu
}

func (n *nodes) set(fail error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = fail
}

func (n *nodes) images(task string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.has[task])
}

func (n *nodes) exec(_ context.Context, task kernel.TaskID, argv []string, in io.Reader, out io.Writer) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil || in == nil {
		return 0, n.fail
	}
	t := tar.NewReader(in)
	if _, err := t.Next(); err != nil {
		_, _ = fmt.Fprintln(out, "no tar")
		return 1, nil
	}
	raw, err := io.ReadAll(t)
	n.has[string(task)] = append(n.has[string(task)], string(raw))
	return 0, err
}

func TestNodesThatComeLaterHaveTheLoadedImages(t *testing.T) {
	w, n := newWorld(t), &nodes{has: map[string][]string{}}
	w.exec = n.exec
	s := w.ready(Definition{Name: "a"})
	images, count, err := w.clusters.Load(t.Context(), "a", tarOf(t, "hello:1"))
	if err != nil || count != 1 || !slices.Equal(images, []string{"docker.io/library/hello:1"}) {
		t.Fatalf("got %v in %d nodes, %v", images, count, err)
	}
	n.set(fmt.Errorf("the machine does not answer: %w", errdefs.ErrUnavailable))
	if err := w.clusters.Change(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(2)}}); err != nil {
		t.Fatal(err)
	}
	second := w.member("a", "node-2")
	s.join("node-2")
	v := w.until("a", "telling what it lacks",
		warns("node-2: cannot load images: image archive: node "+second.Task+": the machine does not answer"))
	if v.State != Ready {
		t.Errorf("it is %s, want %s: its pods run", v.State, Ready)
	}
	n.set(nil)
	w.until("a", "in order", func(v View) bool { return isReady(v) && len(v.Warnings) == 0 })
	if got := n.images(second.Task); len(got) != 1 || !strings.Contains(got[0], "hello:1") {
		t.Errorf("node-2 has %v, want hello:1", got)
	}
	before := len(n.images(second.Task))
	if _, count, err := w.clusters.Load(t.Context(), "a", tarOf(t, "other:1")); err != nil || count != 2 {
		t.Fatalf("loaded into %d nodes, %v, want 2", count, err)
	}
	w.lead() // the next leader does not know what nodes have, and gives it again
	w.until("a", "told by the next leader", isReady)
	deadline := time.After(patience)
	for len(n.images(second.Task)) < before+3 {
		select {
		case <-deadline:
			t.Fatalf("node-2 has %v", n.images(second.Task))
		case <-time.After(10 * time.Millisecond): // an import has no event of its own
		}
	}
}

func TestAnArchiveThatNoNodeTakesIsNotKept(t *testing.T) {
	w, n := newWorld(t), &nodes{has: map[string][]string{}, fail: errors.New("no")}
	w.exec = n.exec
	w.ready(Definition{Name: "a"})
	for what, archive := range map[string]io.Reader{"refused by its node": tarOf(t, "hello:1"),
		"none": strings.NewReader("hello")} {
		if _, _, err := w.clusters.Load(t.Context(), "a", archive); err == nil {
			t.Errorf("%s: loaded", what)
		}
	}
	left, err := filepath.Glob(filepath.Join(w.images, "*", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("kept: %v, %v", left, err)
	}
	if _, _, err := w.clusters.Load(t.Context(), "none", tarOf(t, "x:1")); !errdefs.IsNotFound(err) {
		t.Errorf("into no cluster: got %v", err)
	}
}

func TestAnImageLoadedAgainReplacesItsArchive(t *testing.T) {
	w, n := newWorld(t), &nodes{has: map[string][]string{}}
	w.exec = n.exec
	w.ready(Definition{Name: "a"})
	for range 3 {
		if _, _, err := w.clusters.Load(t.Context(), "a", tarOf(t, "hello:1")); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(w.images, "*", "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("kept: %v, %v, want the last one", left, err)
	}
	if err := w.clusters.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.gone("a")
	if left, err := os.ReadDir(w.images); err != nil || len(left) != 0 {
		t.Errorf("a deleted cluster leaves %v, %v", left, err)
	}
}

// An earlier version could leave an archive that a crash cut off.
func TestAnArchiveThatCannotBeReadIsRemovedAndTold(t *testing.T) {
	w, n := newWorld(t), &nodes{has: map[string][]string{}}
	w.exec = n.exec
	s := w.ready(Definition{Name: "a"})
	v, _, err := w.clusters.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.images, v.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	whole := tarOf(t, "hello:1").Bytes()
	for name, raw := range map[string][]byte{"1-torn.tar": whole[:530], "2-whole.tar": whole, "3-lost.tar": whole} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.lead()
	if err := os.Remove(filepath.Join(dir, "3-lost.tar")); err != nil { // by somebody who wanted room
		t.Fatal(err)
	}
	w.until("a", "rid of it", func(View) bool {
		events, err := w.clusters.Events("a")
		return err == nil && slices.ContainsFunc(events,
			func(e Event) bool { return strings.Contains(e.Message, "1-torn.tar") })
	})
	s.change(func(st *wire.Status) { st.Pods.Running++ })
	w.until("a", "with the other", func(v View) bool { return v.Pods.Running == 1 && len(v.Warnings) == 0 })
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v, want the whole one", left, err)
	}
}
