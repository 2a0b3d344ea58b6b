package image_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

// nodes is how many nodes each cluster has; they take in images and count what was sent.
type nodes map[string]int

func (n nodes) api(t *testing.T, sent map[string]int64) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /kubernetes/v1/clusters/{name}/images", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		size, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		if n[name] == 0 {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"there is no cluster %s"}`, name)
			return
		}
		sent[name] += size
		fmt.Fprintf(w, `{"images":["docker.io/library/hello:1"],"nodes":%d}`, n[name])
	})
	return mux
}

func TestImagesGoToEachCluster(t *testing.T) {
	clitest.Home(t)
	sent := map[string]int64{}
	api := nodes{"a": 1, "b": 2}.api(t, sent)
	file := filepath.Join(t.TempDir(), "hello.tar")
	if err := os.WriteFile(file, make([]byte, 3000), 0o600); err != nil {
		t.Fatal(err)
	}
	r := clitest.Run(t, api, "", "image", "load", file, "--cluster", "a,b")
	if r.Code != 0 || sent["a"] != 3000 || sent["b"] != 3000 {
		t.Errorf("exit %d, error %q, sent %v, want the file to both", r.Code, r.Err, sent)
	}
	clitest.Same(t, "output", r.Out,
		"loaded docker.io/library/hello:1 into a: 1 node\nloaded docker.io/library/hello:1 into b: 2 nodes\n")
	clitest.Run(t, api, "", "image", "load", file, "--cluster", "a,none").
		Says(t, "one that is none", exit.NotFound, "cluster none", "loaded into a")
	clitest.Run(t, api, "", "image", "load", file, "--cluster", "a", "--json").Says(t, "one with --json", 0)

	clear(sent)
	for what, tc := range map[string]struct{ args, says string }{
		"standard input twice": {"- --cluster a,b", "sent once"},
		"a name that is none":  {file + " --cluster a,B", "cannot be a cluster's name"},
		"no name":              {file + " --cluster=", "which cluster?"},
		"no standard input":    {"- --cluster a", "there is no standard input"},
	} {
		clitest.Run(t, api, "", append([]string{"image", "load"}, strings.Fields(tc.args)...)...).Says(t, what, exit.BadUsage, tc.says)
	}
	if len(sent) != 0 {
		t.Errorf("sent %v, want nothing of what was wrong", sent)
	}
}
