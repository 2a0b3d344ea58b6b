package master_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master"
	"github.com/marinaos/marina/internal/store/memory"
)

func TestAPIShowsMachinesQuotasAndTasks(t *testing.T) {
	h, server, task := withTask(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		contains           string
	}{
		{"GET", "/machines/v1", "", 200, `{"machines":[{"id":"a1"`},
		{"GET", "/machines/v1/a1", "", 200, `"connected":true`},
		{"GET", "/machines/v1/a9", "", 404, `{"message":"machine a9: not found"}`},
		{"POST", "/machines/v1", "", 405, `not possible`},
		{"GET", "/quota/v1", "", 200, `{"quotas":[{"role":"/","weight":1,"used"`},
		{"PUT", "/quota/v1/prod/web", `{"limit":{"milliCPU":4000,"mem":-1,"disk":-1,"gpus":-1}}`, 200,
			`{"role":"/prod/web","limit":{"milliCPU":4000`},
		{"GET", "/quota/v1/prod/web", "", 200, `"used":{}`},
		{"PUT", "/quota/v1/", `{"limit":{"milliCPU":-1,"mem":-1,"disk":-1,"gpus":-1}}`, 200, `{"role":"/"`},
		{"PUT", "/quota/v1/prod", `{"limits":{}}`, 400, `"limit\"`},
		{"PUT", "/quota/v1/prod", `{}`, 400, `limit is missing`},
		{"PUT", "/quota/v1/prod", `{"limit":{"mem":-7}}`, 400, `a limit is zero or more, or -1 for none`},
		{"DELETE", "/quota/v1/prod/web", "", 204, ``},
		{"DELETE", "/quota/v1/prod/web", "", 404, `not found`},
		{"GET", "/tasks/v1", "", 200, `{"tasks":[{"id":"app.instance`},
		{"GET", "/tasks/v1/" + task, "", 200, `"state":"TASK_RUNNING"`},
		{"GET", "/tasks/v1/nobody.instance-1._app.1", "", 404, `does not run`},
		{"GET", "/tasks/v1/" + task + "/logs/stdout?tail=5", "", 200, "stdout of " + task + " from 5"},
		{"GET", "/tasks/v1/" + task + "/logs/other", "", 404, `ask for logs/stdout`},
		{"GET", "/tasks/v1/" + task + "/files/a%2Fb/c", "", 200, "a/b/c"},
		{"GET", "/tasks/v1/" + task + "/exec", "", 405, `not possible`},
		{"DELETE", "/machines/v1", "", 405, `not possible`},
		{"DELETE", "/machines/v1/a9", "", 404, `{"message":"machine a9: not found"}`},
		{"DELETE", "/machines/v1/a1?force=maybe", "", 400, `true or false`},
		{"DELETE", "/machines/v1/a1", "", 409, `is connected, runs 1 instances`},
		{"GET", "/net/v1/pool", "", 200, `{"pool":"10.64.0.0/12","subnets":4096,"used":1}`},
		{"PUT", "/net/v1/pool", `{"pool":"10.0.0.0/8"}`, 200, `{"pool":"10.0.0.0/8","subnets":65536,"used":1}`},
		{"PUT", "/net/v1/pool", `{"pool":"10.64.0.0/16"}`, 400, `must have all of 10.64.0.0/12`},
		{"PUT", "/net/v1/pool", `{"prefix":"10.64.0.0/8"}`, 400, `not what is expected`},
		{"DELETE", "/net/v1/pool", "", 405, `not possible`},
		{"GET", "/else", "", 404, `not found`},
	} {
		req, err := http.NewRequest(c.method, server.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "token=secret")
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(b), c.contains) {
			t.Errorf("%s %s: got %d %s, error %v, want %d with %s", c.method, c.path, resp.StatusCode, b, err, c.status,
				c.contains)
		}
	}
	if err := h.Stop(t.Context(), "marathon", ids("app", 1), "done"); err != nil {
		t.Fatal(err)
	}
	w := h.Watch("marathon")
	defer w.Close()
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool {
		return count(seen, kernel.Running) == 0
	})
	var got master.Task
	resp, err := server.Client().Get(server.URL + "/tasks/v1/" + task)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Machine != "a1" {
		t.Errorf("task that ended: got %v, error %v, want it shown", got, err)
	}
}

func TestExecIsFullDuplexThroughTheMaster(t *testing.T) {
	_, server, task := withTask(t)
	for _, http2 := range []bool{true, false} {
		client := server.Client()
		if !http2 {
			plain := client.Transport.(*http.Transport).Clone()
			plain.ForceAttemptHTTP2, plain.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
			client = &http.Client{Transport: plain}
		}
		body, in := io.Pipe()
		resp, err := client.Post(server.URL+"/tasks/v1/"+task+"/exec", "application/octet-stream", body)
		if err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(resp.Body)
		for _, word := range []string{"one", "two", "three"} { // each is answered before the next is sent
			io.WriteString(in, word+"\n")
			if got, err := out.ReadString('\n'); got != strings.ToUpper(word)+"\n" {
				t.Errorf("exec over %s: got %q, error %v, want %q", resp.Proto, got, err, strings.ToUpper(word))
			}
		}
		in.Close()
		if rest, err := io.ReadAll(out); len(rest) != 0 || err != nil {
			t.Errorf("exec over %s: after its end got %q, error %v", resp.Proto, rest, err)
		}
		resp.Body.Close()
	}
}

// withTask is a master with one agent on which one task runs, and its API over HTTPS.
func withTask(t *testing.T, z ...access.Authorizer) (*hall, *httptest.Server, string) {
	h := lead(t, memory.New(), master.Config{})
	newStub("a1", 4000).connect(t, h)
	h.agents(t, 1)
	got, err := h.Launch(t.Context(), kernel.LaunchRequest{Key: "/app@1", Spec: app(t, "/app"), Instances: ids("app", 1)})
	if err != nil || len(got.Placed) != 1 {
		t.Fatalf("launch: %v, error %v", got, err)
	}
	w := h.Watch("marathon")
	defer w.Close()
	follow(t, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool {
		return count(seen, kernel.Running) == 1
	})
	server := httptest.NewUnstartedServer(h.Handler(append(z, nil)[0]))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return h, server, url.PathEscape(string(got.Placed[0].TaskID(0)))
}

// Who may nothing sees nothing: lists are empty, and all else is refused before anything is done or told.
func TestNothingIsToldOrDoneWithoutTheRight(t *testing.T) {
	h, server, task := withTask(t, access.Nobody{})
	for _, q := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/machines/v1", "", 403, "marina:machines:/"},
		{"GET", "/machines/v1/a1", "", 403, "marina:machines:/a1"},
		{"PUT", "/machines/v1/a1/reserved/prod", `{"milliCPU":1000}`, 403, "update marina:machines:/a1"},
		{"DELETE", "/machines/v1/a1/reserved/prod", "", 403, "marina:machines:/a1"},
		{"GET", "/machines/v1/a1/metrics", "", 403, "read marina:metrics:/a1"},
		{"DELETE", "/machines/v1/a1?force=true", "", 403, "delete marina:machines:/a1"},
		{"GET", "/quota/v1", "", 200, `{"quotas":[]}`},
		{"PUT", "/quota/v1/prod", `{"weight":2}`, 403, "dcos:mesos:master:quota:role:/prod"},
		{"DELETE", "/quota/v1/prod", "", 403, "delete dcos:mesos:master:quota:role:/prod"},
		{"GET", "/tasks/v1", "", 200, `{"tasks":[]}`},
		{"GET", "/tasks/v1/" + task, "", 403, "read dcos:mesos:agent:container:app_id:/app"},
		{"GET", "/tasks/v1/" + task + "/logs/stdout", "", 403, "read dcos:mesos:agent:container:app_id:/app"},
		{"GET", "/tasks/v1/" + task + "/files/x", "", 403, "exec dcos:mesos:agent:container:app_id:/app"},
		{"POST", "/tasks/v1/" + task + "/exec", "", 403, "exec dcos:mesos:agent:container:app_id:/app"},
		{"GET", "/net/v1/vips", "", 200, "[]"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), q.method, server.URL+q.path, strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != q.status || !strings.Contains(string(body), q.says) {
			t.Errorf("%s %s: %d %s, want %d with %q", q.method, q.path, resp.StatusCode, body, q.status, q.says)
		}
	}
	if a := h.Agents(); len(a[0].Reserved) != 0 {
		t.Errorf("a part was reserved without the right: %+v", a[0])
	}
}

func TestAMachinesMetricsAreItsAgents(t *testing.T) {
	_, server, _ := withTask(t)
	for path, want := range map[string]struct {
		status int
		says   string
	}{"a1": {200, "marina_agent_groups 1"}, "none": {503, "none"}} {
		resp, err := server.Client().Get(server.URL + "/machines/v1/" + path + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want.status || !strings.Contains(string(body), want.says) {
			t.Errorf("%s: %d %s, want %d with %q", path, resp.StatusCode, body, want.status, want.says)
		}
	}
}
