package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// said keeps what a Log writes.
type said struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write never fails.
func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), text)
}

func file(t *testing.T, text string) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "node.json")
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return at
}

// A node's file comes from a master of another age, and its address from where it was placed.
func TestTheConfigIsReadWithWhatIsKnownOnlyWhenPlaced(t *testing.T) {
	const least = `{"name":"node-1","server":"https://10.0.0.1:6443","minor":"v1.37","clusterDNS":"10.96.0.10"`
	t.Setenv(addressEnv, "10.128.0.7")
	c, err := readConfig(file(t, least+`,"later":true}`))
	if err != nil || c.Address != "10.128.0.7" || c.ClusterDomain != "cluster.local" {
		t.Errorf("got %+v, %v, want the address of the environment and a domain", c, err)
	}
	if c, err := readConfig(file(t, least+`,"address":"10.128.0.8"}`)); err != nil || c.Address != "10.128.0.8" {
		t.Errorf("got %+v, %v, want the address of the file", c, err)
	}
	if got, want := c.program(), "/opt/marina/kubernetes/v1.37/kubernetes-v1.37"; got != want {
		t.Errorf("program: got %s, want %s", got, want)
	}
	for text, says := range map[string]string{
		"": "node.json", least: "node.json", `{"name":7}`: "node.json", least + `,"minor":"1.37"}`: "minor",
		least + `,"registries":["ftp://x"]}`: "no URL", strings.Repeat(" ", maxConfig+1): "larger than",
	} {
		if _, err := readConfig(file(t, text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60q: got %v, want %q", text, err, says)
		}
	}
	t.Setenv(addressEnv, "")
	if _, err := readConfig(file(t, least+`}`)); err == nil || !strings.Contains(err.Error(), "address") {
		t.Errorf("without an address: got %v", err)
	}
	if _, err := readConfig("/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: got %v", err)
	}
}

func TestASizeIsWholeOrNone(t *testing.T) {
	if s, err := readSize(file(t, `{"milliCPU":1500,"mem":2147483648}`)); err != nil || s != (Size{1500, 2 << 30}) {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, text := range []string{`{"milliCPU":-1}`, `{"mem":-1}`, `{"milliCPU":1.5}`, `{`, ``} {
		if _, err := readSize(file(t, text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := readSize("/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: got %v, which is the whole machine", err)
	}
}

func TestAFileIsReplacedWholeOrNotAtAll(t *testing.T) {
	at := filepath.Join(t.TempDir(), "kubelet.json")
	if err := writeJSON(at, object{"a": 1}); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(at, object{"a": func() {}}); err == nil {
		t.Error("what is no JSON was written")
	}
	if err := os.Mkdir(at+".new", 0o700); err != nil { // nothing can be written beside it
		t.Fatal(err)
	}
	if err := writeJSON(at, object{"a": 2}); err == nil {
		t.Error("nothing could be written, and nobody says so")
	}
	if got, err := os.ReadFile(at); err != nil || string(got) != "{\n  \"a\": 1\n}\n" {
		t.Errorf("got %q, %v, want what was there", got, err)
	}
}

func TestArchivesThatAreNoneAreNamed(t *testing.T) {
	dir := t.TempDir()
	for what, raw := range map[string]string{"no tar": "hello", "cut off": strings.Repeat("x", 700)} {
		if err := os.WriteFile(filepath.Join(dir, "a.tar"), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listImages(dir); err == nil || !strings.Contains(err.Error(), "a.tar") {
			t.Errorf("%s: got %v, want an error that names it", what, err)
		}
	}
	archive(t, filepath.Join(dir, "a.tar"), `{"manifests":`)
	if _, err := listImages(dir); err == nil || !strings.Contains(err.Error(), "index.json") {
		t.Errorf("a torn index: got %v", err)
	}
	archive(t, filepath.Join(dir, "a.tar"), `{"manifests":[{"digest":"sha256:1"}]}`)
	if images, err := listImages(dir); err != nil || len(images) != 0 {
		t.Errorf("an image without a name: got %v, %v, want none", images, err)
	}
	if images, err := listImages(filepath.Join(dir, "none")); err != nil || len(images) != 0 {
		t.Errorf("no directory: got %v, %v", images, err)
	}
}

// A node whose add-ons' images cannot be imported serves pods of its own all the same.
func TestImagesAreGivenUpAfterSomeTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out said
		n := newNode("", &Config{wire.NodeConfig{Address: "10.128.0.7"}}, &out)
		if !slices.Contains(n.env, "NODE_ADDRESS=10.128.0.7") {
			t.Errorf("the programs' environment: got %v", n.env)
		}
		begun := time.Now()
		n.bringImages(t.Context(), nil)
		if took := time.Since(begun); took != 0 || out.count("\n") != 0 {
			t.Errorf("no images: took %v", took)
		}
		images := []Image{{Name: "docker.io/x/a:1", Digest: "sha256:1", Archive: "a.tar"}}
		n.bringImages(t.Context(), images) // there is no containerd, nor its client
		if took, want := time.Since(begun), 15*firstWait; took != want || out.count("importing images") != importTries {
			t.Errorf("given up after %v and %d tries, want %v and %d", took, out.count("importing images"), want, importTries)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun = time.Now()
		if n.bringImages(ctx, images); time.Since(begun) != time.Second {
			t.Errorf("the node ends, and it goes on for %v", time.Since(begun))
		}
	})
}

func TestAListenerIsWaitedForForAWhile(t *testing.T) {
	at := filepath.Join(t.TempDir(), "socket")
	if err := listens(t.Context(), "unix", at, 50*time.Millisecond); err == nil {
		t.Error("nobody listens, and somebody is found")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := listens(ctx, "unix", at, time.Hour); err == nil {
		t.Error("the node ends, and somebody is found")
	}
	found := make(chan error, 1)
	go func() { found <- listens(t.Context(), "unix", at, time.Minute) }()
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := <-found; err != nil {
		t.Errorf("somebody listens: %v", err)
	}
	n := newNode("", &Config{wire.NodeConfig{Server: "https://" + echoless(t)}}, io.Discard)
	n.awaitServer(t.Context()) // returns, since it listens
	n.config.Server = ":"
	n.awaitServer(t.Context()) // as does one that is no URL
}

// echoless is the address of a server that takes connections and says nothing.
func echoless(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestCheckIsNotKeptByAKubeletThatHangs(t *testing.T) {
	begun := time.Now()
	if err := check(echoless(t), "/none"); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a silent kubelet: got %v", err)
	}
	if took := time.Since(begun); took > 2*checkWithin {
		t.Errorf("it took %v, want about %v", took, checkWithin)
	}
	if err := check("127.0.0.1:1", "/none"); err == nil || err.Error() != "the kubelet does not listen yet" {
		t.Errorf("no kubelet: got %v", err)
	}
}

func TestAWrongCommandLineSaysTheRightOne(t *testing.T) {
	for _, args := range [][]string{nil, {"a", "b"}} {
		if err := run(args, io.Discard); err == nil || !strings.Contains(err.Error(), "usage: marina-node CONFIG") {
			t.Errorf("%v: got %v", args, err)
		}
	}
	if err := run([]string{"/none/node.json"}, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}

// What the kubelet is started by changes with the node's size, and what it shows with its certificates.
func TestOnlyWhatSeesAChangeStartsAgain(t *testing.T) {
	for what, c := range map[string]struct{ size, pki, kubelet, network bool }{
		"nothing":      {false, false, false, false},
		"certificates": {false, true, true, true},
		"a size that cannot be written, as there is no /run/marina": {true, false, false, false},
	} {
		var out said
		n := newNode("", &Config{}, &out)
		kubelet, network := newProgram("kubelet", nil, nil, 0, nil, nil), newProgram("network", nil, nil, 0, nil, nil)
		if _, err := os.Stat(runDir); c.size && err == nil {
			continue // this is a node
		}
		n.apply(c.size, c.pki, kubelet, network)
		n.apply(c.size, c.pki, kubelet, network) // twice is one wish
		if (len(kubelet.restart) == 1) != c.kubelet || (len(network.restart) == 1) != c.network {
			t.Errorf("%s: the kubelet starts again %v, node-network %v", what, len(kubelet.restart) == 1, len(network.restart) == 1)
		}
		if c.size != (out.count("keeps its size") > 0) {
			t.Errorf("%s: said %q", what, out.text.String())
		}
	}
}

func TestAProgramThatIsNotThereIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out said
		p := newProgram("gone", []string{"/none/gone"}, nil, time.Second, &Reaper{}, &Log{out: &out})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx); close(done) }()
		time.Sleep(time.Second)
		if n := out.count("gone ended (start /none/gone: no such file or directory)"); n != 3 {
			t.Errorf("after a second: tried %d times, want 3: %s", n, out.text.String())
		}
		p.Restart() // does not wait for its turn
		synctest.Wait()
		if n := out.count("gone ended"); n != 4 {
			t.Errorf("after a wish: tried %d times, want 4", n)
		}
		cancel()
		<-done
	})
}

// The id of a process that was waited for may be another's.
func TestNobodyIsSignalledInPlaceOfWhoEnded(t *testing.T) {
	r := reaper(t)
	pid, ended, err := r.Start([]string{"/bin/sh", "-c", "exit 7"}, nil, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if status := <-ended; status.ExitStatus() != 7 {
		t.Errorf("status: got %v, want 7", status)
	}
	r.mu.Lock()
	_, ours := r.ours[pid]
	r.mu.Unlock()
	if ours {
		t.Errorf("process %d was waited for, and may be signalled", pid)
	}
	r.Signal(os.Getpid(), syscall.SIGKILL) // who was not started here is nobody's to signal, or this test ends
	if _, _, err := r.Start([]string{"/none"}, nil, os.Stderr); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: got %v", err)
	}
	if _, err := r.Output(t.Context(), []string{"/none"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("output of no program: got %v", err)
	}
}
