package supply

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/kernel"
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
