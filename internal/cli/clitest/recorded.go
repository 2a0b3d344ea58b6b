package clitest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Recorded is a datacenter's API that always answers the same: what a small datacenter answered once. It keeps what it
// was asked.
type Recorded struct {
	URL string
	t   *testing.T

	mu    sync.Mutex
	asked []string // METHOD path?query body
}

// Record serves it until the test ends.
func Record(t *testing.T) *Recorded {
	r := &Recorded{t: t}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	r.URL = srv.URL
	return r
}

// Requests returns what was asked since the last call.
func (r *Recorded) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.asked
	r.asked = nil
	return out
}

// ServeHTTP implements http.Handler.
func (r *Recorded) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := req.URL.EscapedPath()
	exec := strings.HasSuffix(path, "/exec")
	var body []byte
	if !exec {
		body, _ = io.ReadAll(req.Body)
	}
	if len(body) > 400 {
		body = fmt.Appendf(nil, "(%d bytes)", len(body))
	}
	if len(req.URL.RawQuery) > 0 {
		path += "?" + req.URL.RawQuery
	}
	r.mu.Lock()
	r.asked = append(r.asked, strings.TrimSpace(req.Method+" "+path+" "+string(body)))
	r.mu.Unlock()
	switch {
	case exec:
		r.exec(w, req)
		return
	case strings.HasSuffix(req.URL.Path, "/events") && req.Header.Get("Accept") == "text/event-stream":
		fmt.Fprint(w, "event: event_stream_attached\ndata: {}\n\nevent: deployment_success\ndata: {\"id\":\"d1\"}\n\n"+
			"event: deployment_failed\ndata: {\"id\":\"d2\",\"reason\":\"its instances die\"}\n\n")
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		return
	case strings.Contains(path, "/logs/"):
		w.Header().Set("Marina-Offset", "0")
	}
	a, ok := answers()[req.Method+" "+req.URL.Path]
	if !ok {
		a = answer{http.StatusNotFound, fmt.Sprintf(`{"message":"there is no %s"}`, req.URL.Path)}
	}
	w.WriteHeader(a.status)
	io.WriteString(w, a.body)
}

// exec answers with what it was told to run, and ends with 3 when that is "false".
func (r *Recorded) exec(w http.ResponseWriter, req *http.Request) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		r.t.Error(err)
	}
	kind, payload, err := kernel.ReadExecFrame(req.Body)
	var start kernel.ExecRequest
	if err != nil || kind != kernel.ExecStart || json.Unmarshal(payload, &start) != nil {
		r.t.Errorf("exec began with frame %v %q (%v)", kind, payload, err)
	}
	var in []byte
	for kind != kernel.ExecStdinEOF && err == nil {
		kind, payload, err = kernel.ReadExecFrame(req.Body)
		if kind == kernel.ExecStdin {
			in = append(in, payload...)
		}
	}
	var result kernel.ExecResult
	switch start.Argv[0] {
	case "false":
		result.Code = 3
	case "nothing":
		result.Error = "nothing: there is no such program"
	}
	end, _ := json.Marshal(result)
	for chunk := range slices.Chunk(fmt.Appendf(nil, "%v tty=%v %s\n", start.Argv, start.TTY, in), kernel.MaxExecFrame) {
		kernel.WriteExecFrame(w, kernel.ExecStdout, chunk)
	}
	kernel.WriteExecFrame(w, kernel.ExecStderr, []byte("a warning\n"))
	kernel.WriteExecFrame(w, kernel.ExecExit, end)
}

//go:embed testdata/answers.txt
var answersText string

// answer is a canned answer to one request.
type answer struct {
	status int
	body   string
}

// answers is all of them, by method and path. In the file each stands under its request, with the status if that is not
// 200; HOURS and DAYS are times some hours and some days ago.
func answers() map[string]answer {
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	text := strings.NewReplacer("HOURS", ago(3*time.Hour+time.Minute), "DAYS", ago(73*time.Hour)).Replace(answersText)
	all := map[string]answer{}
	for block := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		request, body, _ := strings.Cut(block+"\n", "\n")
		a := answer{http.StatusOK, body}
		fields := strings.Fields(request)
		if len(fields) == 3 {
			a.status, _ = strconv.Atoi(fields[2])
		}
		all[fields[0]+" "+fields[1]] = a
	}
	return all
}

// WellUnits are the units of a datacenter that is well, as GET /system/health/v1 lists them.
const WellUnits = `{"id":"marina-store.service","name":"store","health":0,"output":""},` +
	`{"id":"marina-agent.service","name":"agent","health":0,"output":""}`

// Kubeconfig is a cluster's kubeconfig as the API gives it.
func Kubeconfig(name, ttl string) string {
	return "apiVersion: v1\nkind: Config\nclusters:\n- name: " + name + "\n" +
		"  cluster: {server: 'https://192.0.2.1:31004', certificate-authority-data: Y2E=}\n" +
		"users:\n- name: admin\n  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5, ttl: '" + ttl + "'}\n" +
		"contexts:\n- name: marina-" + name + "\n  context: {cluster: " + name + ", user: admin}\ncurrent-context: marina-" +
		name + "\n"
}
