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
		clitest.Run(t, api, "", append([]string{"image", "load"}, strings.Fields(tc.args)...)...).Says(t, what,
			exit.BadUsage, tc.says)
	}
	if len(sent) != 0 {
		t.Errorf("sent %v, want nothing of what was wrong", sent)
	}
}

// archive is a file that the API takes for an image.
func archive(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hello.tar")
	if err := os.WriteFile(file, []byte("an archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestImagesAreListedByTheNamesPeopleGiveThem(t *testing.T) {
	clitest.Home(t)
	r := clitest.Run(t, clitest.Answers(200, `{"images": [
		{"name": "docker.io/library/nginx:1", "digest": "sha256:0123456789abcdef0123456789abcdef", "size": 52428800},
		{"name": "docker.io/ann/tool:2", "digest": "sha256:00ff", "size": 3000},
		{"name": "registry.example/x:3", "digest": "sha256:00fe", "size": 0}]}`), "", "image", "list")
	clitest.Same(t, "list", r.Out, ""+
		"NAME                  DIGEST                SIZE\n"+
		"nginx:1               sha256:0123456789ab…  50 MiB\n"+
		"ann/tool:2            sha256:00ff           3000 B\n"+
		"registry.example/x:3  sha256:00fe           0 B\n")
	r = clitest.Run(t, clitest.Answers(200, `{"images": []}`), "", "image", "list")
	clitest.Same(t, "list of nothing", r.Out, "NAME  DIGEST  SIZE\n")
	if r := clitest.Run(t, clitest.Answers(200, `{"images": [], "newer": 1}`), "", "image", "list",
		"--json"); !strings.Contains(r.Out, `"newer": 1`) {
		t.Errorf("list --json printed %q, want the answer", r.Out)
	}
}

func TestAnImageIsSentAsItIs(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("POST /images/v1",
		`{"images": [{"name": "docker.io/library/new:1", "digest": "sha256:00ff", "size": 10}]}`)
	loaded := "NAME   DIGEST       SIZE\nnew:1  sha256:00ff  10 B\n"
	r := clitest.Run(t, datacenter, "", "image", "load", archive(t))
	clitest.Same(t, "load", r.Out, loaded)
	datacenter.Asked(t, "load", "POST /images/v1 an archive")
	r = clitest.Run(t, datacenter, "", "image", "load", archive(t), "--name", "a/b:1&x", "--quiet")
	clitest.Same(t, "load --name", r.Out, loaded)
	datacenter.Asked(t, "load --name", "POST /images/v1?name=a%2Fb%3A1%26x an archive")
	clitest.Run(t, datacenter, "", "image", "load", "/does/not/exist.tar").Says(t, "no file",
		exit.BadUsage, "no such file")
	clitest.Run(t, datacenter, "", "image", "load").Says(t, "no argument", exit.BadUsage, "load FILE")
	datacenter.Asked(t, "what cannot be read")

	for what, tc := range map[string]struct {
		status int
		body   string
		code   int
		says   string
	}{
		"no image": {400, `{"message": "hello.tar is neither an OCI nor a docker archive"}`, exit.Failed,
			"neither an OCI nor"},
		"a full disk": {507, `{"message": "images may take 10 GiB: remove some"}`, exit.Failed, "remove some"},
		"not allowed": {403, `{"message": "bob may not load images"}`, exit.Denied, "bob may not"},
		"no answer":   {200, `loaded`, exit.Failed, "not what this version expects"},
	} {
		clitest.Run(t, clitest.Answers(tc.status, tc.body), "", "image", "load", archive(t)).Says(t, what, tc.code, tc.says)
	}
	clitest.Run(t, clitest.Answers(200, `{"images": 7}`), "", "image", "load", archive(t), "--cluster", "a").
		Says(t, "no answer of a cluster", exit.Failed, "not what this version expects")
}

func TestAnImageIsRemovedByItsName(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("DELETE /images/v1/ann/tool:2 204", "")
	r := clitest.Run(t, datacenter, "", "image", "remove", "ann/tool:2")
	clitest.Same(t, "remove", r.Out, "removed ann/tool:2\n")
	datacenter.Asked(t, "remove", "DELETE /images/v1/ann/tool:2")
	clitest.Run(t, datacenter, "", "image", "remove", "none").Says(t, "none", exit.NotFound, "/images/v1/none")
	clitest.Run(t, datacenter, "", "image", "remove").Says(t, "no name", exit.BadUsage, "remove NAME")
	clitest.Run(t, clitest.Answers(409, `{"message": "app /web runs it"}`), "", "image", "remove", "web").
		Says(t, "one in use", exit.Conflict, "app /web runs it")
}
