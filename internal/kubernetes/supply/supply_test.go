package supply

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/kubernetes/core"
)

// Whoever is root in a node may print for ever, or never end.
func TestProgramsInNodesAreBounded(t *testing.T) {
	node := core.Node{Agent: "a1", Task: "t"}
	var out tail
	for n := range 1000 {
		fmt.Fprintf(&out, "%d %s\n", n, strings.Repeat("y", n))
		if len(out.kept) > 2*maxSaid {
			t.Fatalf("%d bytes are kept, at most %d", len(out.kept), 2*maxSaid)
		}
	}
	if _, err := out.Write(bytes.Repeat([]byte("z"), 10<<20)); err != nil || len(out.kept) > 2*maxSaid ||
		len(out.kept) < maxSaid {
		t.Errorf("%d bytes are kept of 10 MiB, %v", len(out.kept), err)
	}
	s := New(Config{Exec: func(_ context.Context, _ kernel.AgentID, _ kernel.TaskID, _ []string, _ io.Reader,
		out io.Writer) (int, error) {
		for range 1000 {
			_, _ = out.Write(bytes.Repeat([]byte("y\n"), 32<<10))
		}
		_, _ = out.Write([]byte("ctr: no space left\n"))
		return 1, nil
	}})
	if err := s.ctr(t.Context(), node, nil, "import"); err == nil ||
		!strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v, want the last line", err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Exec: func(ctx context.Context, _ kernel.AgentID, _ kernel.TaskID, _ []string, _ io.Reader,
			_ io.Writer) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}})
		began := time.Now()
		err := s.ctr(t.Context(), node, nil, "import")
		if took := time.Since(began); took != execLimit || err == nil || !strings.Contains(err.Error(), execLimit.String()) {
			t.Errorf("after %v: %v, want an end after %v that says so", took, err, execLimit)
		}
	})
}

// kept is archives of a cluster, by their file's name.
func kept(t *testing.T, files map[string][]byte) *archive.Store {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "id-a"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, raw := range files {
		if err := os.WriteFile(filepath.Join(dir, "id-a", name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := archive.New(dir)
	if err := s.Open(nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// image is an archive that names an image.
func image(name string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := fmt.Sprintf(`[{"RepoTags":[%q]}]`, name)
	_ = w.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(text))})
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.Bytes()
}

// supplier gives nodes images by exec, and returns what became of each.
func supplier(ctx context.Context, archives *archive.Store, exec Exec) (*Supplier, <-chan core.Supply) {
	done := make(chan core.Supply, 100)
	return New(Config{Archives: archives, Exec: exec, Log: slog.New(slog.DiscardHandler),
		Go: func(f func(context.Context) error) { go func() { _ = f(ctx) }() },
		Done: func(_ context.Context, name, id string, s core.Supply) {
			if name == "a" && id == "id-a" {
				done <- s
			}
		}}), done
}

// One archive's fault keeps a node from no other.
func TestANodeIsGivenWhatThereIs(t *testing.T) {
	archives := kept(t, map[string][]byte{"1.tar": image("hello:1"), "2-torn.tar": image("x:1")[:530],
		"4.tar": image("docker.io/library/full:1")})
	var said []string
	s, done := supplier(t.Context(), archives, func(_ context.Context, agent kernel.AgentID, task kernel.TaskID,
		argv []string, in io.Reader, _ io.Writer) (int, error) {
		said = append(said, fmt.Sprint(agent, task, argv[6:]))
		if in != nil {
			if _, err := io.Copy(io.Discard, in); err != nil {
				return 1, err
			}
		}
		return 0, nil
	})
	node := core.Node{Member: "node-1", Instance: "i", Agent: "a1", Task: "t"}
	s.Give("a", "id-a", node, []string{"1.tar", "2-torn.tar", "3-gone.tar", "4.tar"})
	got := <-done
	want := core.Supply{Node: node, Files: []string{"1.tar", "4.tar"}, Lost: []string{"2-torn.tar", "3-gone.tar"},
		Broken: []string{"2-torn.tar"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	ran := []string{"a1t[import -]", "a1t[tag --force hello:1 docker.io/library/hello:1]", "a1t[import -]"}
	if !slices.Equal(said, ran) {
		t.Errorf("run in the node: %v, want %v", said, ran)
	}
	if left := archives.List("id-a"); !slices.Equal(left, []string{"1.tar", "4.tar"}) {
		t.Errorf("kept: %v, want that the torn one is removed", left)
	}
}

func TestWhatANodeRefusesIsTold(t *testing.T) {
	archives := kept(t, map[string][]byte{"1.tar": image("hello:1"), "2.tar": image("other:1")})
	calls := 0
	s, done := supplier(t.Context(), archives, func(_ context.Context, _ kernel.AgentID, _ kernel.TaskID, argv []string,
		_ io.Reader, out io.Writer) (int, error) {
		calls++
		if argv[6] == "tag" {
			_, _ = io.WriteString(out, "ctr: image \"other:1\": not found\n") // it has its complete name already
			return 1, nil
		}
		if calls == 1 {
			return 0, fmt.Errorf("machine a1 does not answer: %w", errdefs.ErrUnavailable)
		}
		return 0, nil
	})
	s.Give("a", "id-a", core.Node{Agent: "a1", Task: "t"}, []string{"1.tar", "2.tar"})
	got := <-done
	if !errdefs.IsUnavailable(got.Err) || !slices.Equal(got.Files, []string{"2.tar"}) || len(got.Lost) != 0 {
		t.Errorf("got %+v, want the other image and why the first is not there", got)
	}
	if left := archives.List("id-a"); len(left) != 2 {
		t.Errorf("kept: %v, want both: the node's fault is not the archive's", left)
	}
}

// Each import sends a whole archive through one master.
func TestSoManyNodesAreGivenImagesSideBySide(t *testing.T) {
	archives := kept(t, map[string][]byte{"1.tar": image("docker.io/library/full:1")})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var busy atomic.Int32
		s, _ := supplier(ctx, archives, func(ctx context.Context, _ kernel.AgentID, _ kernel.TaskID, _ []string,
			_ io.Reader, _ io.Writer) (int, error) {
			busy.Add(1)
			<-ctx.Done()
			busy.Add(-1)
			return 0, ctx.Err()
		})
		for range 3 * maxNodes {
			s.Give("a", "id-a", core.Node{}, []string{"1.tar"})
		}
		synctest.Wait()
		if n := busy.Load(); n != maxNodes {
			t.Errorf("%d at once, want %d", n, maxNodes)
		}
		cancel() // the leadership ends: nobody waits on
		synctest.Wait()
		if n := busy.Load(); n != 0 {
			t.Errorf("%d go on after the end", n)
		}
	})
}
