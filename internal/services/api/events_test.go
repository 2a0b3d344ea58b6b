package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services"
)

// TestEventStream reads the stream over a real connection's framing.
func TestEventStream(t *testing.T) {
	inWorld(t, func(w *world) {
		w.kernel.Auto(true)
		ctx, cancel := context.WithCancel(context.Background())
		listen := func(query string) *streamRecorder {
			rec := &streamRecorder{ResponseRecorder: httptest.NewRecorder()}
			r := httptest.NewRequestWithContext(ctx, "GET", "/v2/events"+query, nil)
			r.Header.Set("Accept", "text/event-stream")
			go w.api.ServeHTTP(rec, r)
			synctest.Wait()
			return rec
		}
		all := listen("?plan-format=light")
		few := listen("?event_type=deployment_success&event_type=api_post_event")
		w.must(201, "POST", "/v2/apps", `{"id":"/web","cmd":"x","healthChecks":[{}]}`)
		w.after(10 * time.Second)
		cancel()
		synctest.Wait()
		if got, want := all.types(t), []string{"event_stream_attached", "event_stream_attached", "api_post_event",
			"deployment_info", "deployment_step_success",
			"deployment_info", "status_update_event", "instance_changed_event", "instance_health_changed_event",
			"health_status_changed_event",
			"deployment_step_success", "deployment_success", "group_change_success"}; !cmp.Equal(got[:len(want)], want) {
			t.Errorf("events: %s", cmp.Diff(want, got))
		}
		if got, want := few.types(t), []string{"api_post_event", "deployment_success"}; !cmp.Equal(got, want) {
			t.Errorf("filtered events: %s", cmp.Diff(want, got))
		}
		if !strings.Contains(all.text(), "\r\n\r\n\r\n") {
			t.Errorf("no heartbeat in %q", all.text())
		}
	})
}

// streamRecorder keeps what a stream wrote.
type streamRecorder struct {
	*httptest.ResponseRecorder
	mu    sync.Mutex
	block chan struct{}
}

func (r *streamRecorder) Write(b []byte) (int, error) {
	if r.block != nil {
		<-r.block
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ResponseRecorder.Write(b)
}

func (r *streamRecorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Body.String()
}

func (r *streamRecorder) types(t *testing.T) (out []string) {
	kind := ""
	for s := bufio.NewScanner(strings.NewReader(r.text())); s.Scan(); {
		if k, ok := strings.CutPrefix(s.Text(), "event: "); ok {
			kind = k
			out = append(out, k)
		}
		if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
			var h marathon.Head
			if err := json.Unmarshal([]byte(data), &h); err != nil || h.EventType != kind || len(h.Timestamp) != 24 {
				t.Errorf("event %s: got %q, %v", kind, data, err)
			}
		}
	}
	return out
}

func TestSlowReaderOfEventsIsCutOff(t *testing.T) {
	inWorld(t, func(w *world) {
		rec := &streamRecorder{ResponseRecorder: httptest.NewRecorder(), block: make(chan struct{})}
		r := httptest.NewRequest("GET", "/v2/events", nil)
		r.Header.Set("Accept", "text/event-stream")
		ended := make(chan struct{})
		go func() { w.api.ServeHTTP(rec, r); close(ended) }()
		synctest.Wait()
		for part := range 2 { // each app of a request is an event
			list := []string{}
			for n := range services.StreamBuffer/2 + 10 {
				list = append(list, fmt.Sprintf(`{"id":"/p%d/a%d","cmd":"x","instances":0}`, part, n))
			}
			w.must(200, "PUT", "/v2/apps", "["+strings.Join(list, ",")+"]")
		}
		close(rec.block)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("the stream goes on")
		}
	})
}

// TestClientCallMap makes the calls of go-marathon, marathon-lb, zdd and dcos-ui in their odd forms and reads what
// they read.
func TestClientCallMap(t *testing.T) {
	inWorld(t, func(w *world) {
		w.kernel.Auto(true)
		created := w.must(201, "POST", "/v2/apps",
			`{"id":"/app/foo","cmd":"x","instances":2,"cpus":0.1,"mem":64,"args":null,"ports":null,"dependencies":null,"constraints":null,"container":null,"labels":{"HAPROXY_GROUP":"external"},"env":{},"healthChecks":[{"protocol":"HTTP","portIndex":0}]}`)
		if created["version"] == nil || created["id"] != "/app/foo" {
			t.Errorf("CreateApplication: got %v", created)
		}
		scaled := w.must(200, "PUT", "/v2/apps/app/foo?force=true",
			`{"id":"/app/foo","instances":3,"ports":null,"dependencies":null}`)
		for _, d := range w.deployments() {
			if d.ID == scaled["deploymentId"] {
				t.Errorf("WaitOnDeployment: %s is still there", d.ID)
			}
		}
		a := w.must(200, "GET", "/v2/apps//app/foo", `""`)["app"].(map[string]any)
		if a["tasksRunning"] != a["instances"] || a["tasks"] == nil || len(a["portDefinitions"].([]any)) != 1 {
			t.Errorf("WaitOnApplication: got %v", a)
		}
		w.must(200, "PUT", "/v2/apps/app/foo", fmt.Sprintf(`{"version":%q}`, created["version"]))
		if got := w.app("/app/foo")["instances"]; got != 2.0 {
			t.Errorf("SetApplicationVersion: instances: got %v, want 2", got)
		}
		task := w.app("/app/foo")["tasks"].([]any)[0].(map[string]any)["id"].(string)
		killed := w.must(200, "DELETE", "/v2/apps/app/foo.instance-0./app/tasks/"+task, "")
		if killed["task"].(map[string]any)["id"] != task {
			t.Errorf("KillTask: got %v", killed)
		}
		w.must(200, "POST", "/v2/apps/app/foo/restart", `{}`)
		lb := w.must(200, "GET", "/v2/apps?embed=apps.tasks", "")["apps"].([]any)[0].(map[string]any)
		lbTask := lb["tasks"].([]any)[0].(map[string]any)
		for _, name := range []string{"host", "id", "ports", "servicePorts", "healthCheckResults", "ipAddresses"} {
			if lbTask[name] == nil {
				t.Errorf("marathon-lb: task has no %s: %v", name, lbTask)
			}
		}
		if lb["labels"] == nil || len(lb["networks"].([]any)) != 1 {
			t.Errorf("marathon-lb: got %v", lb)
		}
		if lb["versionInfo"].(map[string]any)["lastScalingAt"] == nil || lb["deployments"] == nil {
			t.Errorf("zdd: got %v", lb)
		}
		next := w.app("/app/foo")["tasks"].([]any)[0].(map[string]any)["id"].(string)
		if got := w.must(200, "POST", "/v2/tasks/delete?scale=true", fmt.Sprintf(`{"ids":[%q]}`,
			next))["deploymentId"]; got == nil {
			t.Error("zdd kill and scale: no deployment")
		}
		g := w.must(200, "GET", "/v2/groups?embed=group.groups&embed=group.apps&embed=group.pods&embed=group.apps.deployments&embed=group.apps.counts&embed=group.apps.tasks&embed=group.apps.taskStats&embed=group.apps.lastTaskFailure", "")
		sub := g["groups"].([]any)[0].(map[string]any)
		if sub["id"] != "/app" || len(sub["apps"].([]any)) != 1 ||
			sub["apps"].([]any)[0].(map[string]any)["taskStats"] == nil || g["dependencies"] == nil {
			t.Errorf("dcos-ui groups: got %v", g)
		}
		for _, path := range []string{"/v2/queue?embed=lastUnusedOffers", "/v2/info", "/v2/deployments",
			"/v2/pods/::status", "/v2/groups/app"} {
			if rec := w.call("GET", path, ""); rec.Code != 200 {
				t.Errorf("GET %s: got %d", path, rec.Code)
			}
		}
		if rec := w.call(http.MethodHead, "/v2/pods", ""); rec.Code != 200 {
			t.Errorf("SupportsPods: got %d", rec.Code)
		}
		w.must(200, "DELETE", "/v2/apps/app/foo?force=true", "")
	})
}
