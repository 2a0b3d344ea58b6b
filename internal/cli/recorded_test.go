package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// recorded is a datacenter's API that always answers the same: what a small datacenter answered once. It keeps what it was
// asked.
type recorded struct {
	t   *testing.T
	url string

	mu    sync.Mutex
	asked []string // METHOD path?query body
}

func record(t *testing.T) *recorded {
	r := &recorded{t: t}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	r.url = srv.URL
	return r
}

// requests returns what was asked since the last call.
func (r *recorded) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.asked
	r.asked = nil
	return out
}

func (r *recorded) ServeHTTP(w http.ResponseWriter, req *http.Request) {
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
	answer, ok := answersNow()[req.Method+" "+req.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"there is no %s"}`, req.URL.Path)
		return
	}
	if status, rest, ok := strings.Cut(answer, "|"); ok && len(status) == 3 {
		var n int
		fmt.Sscan(status, &n)
		w.WriteHeader(n)
		answer = rest
	}
	io.WriteString(w, answer)
}

// exec answers with what it was told to run, and ends with 3 when that is "false".
func (r *recorded) exec(w http.ResponseWriter, req *http.Request) {
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
	kernel.WriteExecFrame(w, kernel.ExecStdout, fmt.Appendf(nil, "%v tty=%v %s\n", start.Argv, start.TTY, in))
	kernel.WriteExecFrame(w, kernel.ExecStderr, []byte("a warning\n"))
	kernel.WriteExecFrame(w, kernel.ExecExit, end)
}

// answersNow is what it answers, by method and path; a status other than 200 stands before a bar.
func answersNow() map[string]string {
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	hours, days := ago(3*time.Hour+time.Minute), ago(73*time.Hour)
	web := `{"id":"/prod/web","instances":3,"cpus":0.5,"mem":256,"cmd":"serve","version":"2026-03-01T10:00:00.000Z",` +
		`"container":{"docker":{"image":"nginx:1"}},"healthChecks":[{}],"env":{"A":"1","B":"2"},"tasksRunning":2,"tasksStaged":1,"tasksHealthy":1,` +
		`"deployments":[{"id":"d2"}],"lastTaskFailure":{"taskId":"prod_web.instance-9._app.1","state":"TASK_FAILED","message":"exit code 1","timestamp":"` + hours + `"},` +
		`"tasks":[{"id":"prod_web.instance-1._app.1","appId":"/prod/web","host":"m1","state":"TASK_RUNNING","ports":[31001,31002],"startedAt":"` + hours + `",` +
		`"ipAddresses":[{"ipAddress":"10.128.0.5"}],"healthCheckResults":[{"alive":true}]},` +
		`{"id":"prod_web.instance-2._app.1","appId":"/prod/web","host":"m2","state":"TASK_STAGING","stagedAt":"` + days + `",` +
		`"healthCheckResults":[{"alive":false,"lastFailureCause":"connection refused"}]}]}`
	x := `{"id":"/x","instances":2,"cpus":1,"mem":32,"cmd":"` + strings.Repeat("sleep 1000; ", 5) + `","tasksRunning":2,"tasks":[]}`
	tasks := `{"tasks":[{"id":"x.instance-1._app.1","appId":"/x","host":"m1","state":"TASK_RUNNING","ports":[],"startedAt":"` + days + `","version":"v1","ipAddresses":[{"ipAddress":"10.128.0.9"}]},` +
		`{"id":"prod_web.instance-1._app.1","appId":"/prod/web","host":"m1","state":"TASK_RUNNING","ports":[31001]},` +
		`{"id":"prod_web.instance-2._app.1","appId":"/prod/web","host":"m2","state":"TASK_STAGING"}]}`
	deployments := `[{"id":"d2","version":"v","affectedApps":["/prod/web"],"currentStep":1,"totalSteps":2,"reason":"no room for 1 instance",` +
		`"currentActions":[{"action":"ScaleApplication","app":"/prod/web"}]}]`
	changed := `{"version":"2026-03-01T10:00:00.000Z","deploymentId":"d1"}`
	machine := `{"id":"m-1","hostname":"one","address":"192.0.2.1","connected":true,"groups":3,"subnet":"10.128.0.0/24","used":{"milliCPU":1500,"mem":1073741824},` +
		`"total":{"milliCPU":4000,"mem":8589934592,"disk":107374182400},"free":{"milliCPU":2500,"mem":7516192768},"ports":{"first":31000,"last":32000},` +
		`"kernel":"6.1.0","cgroup":"v2","version":"dev","attributes":{"rack":"a"},"warnings":["few inotify instances"]}`
	quotas := `{"quotas":[{"role":"/","share":0.25,"weight":1,"used":{"milliCPU":1500,"mem":1073741824}},` +
		`{"role":"/prod","limit":{"milliCPU":8000,"mem":17179869184,"disk":-1,"gpus":-1},"guarantee":{"milliCPU":2000},"held":{"milliCPU":500},"lent":{"milliCPU":100},` +
		`"used":{"milliCPU":1500},"share":0.1875,"weight":2,"waiting":4,"asks":{"milliCPU":4000},"why":"its limit of 8 cpus"}]}`
	cluster := `{"name":"demo","group":"/","version":"1.37","nodes":{"count":1,"cpus":0.5,"mem":1024,"disk":8192},"controlPlane":{"cpus":0.1,"mem":256,"disk":2048},` +
		`"podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/16","id":"demo-1","state":"ready","release":"v1.37.2","created":"` + hours + `",` +
		`"server":"https://192.0.2.1:31004","internal":"https://10.128.0.5:6443","pods":{"running":4,"pending":1},"members":[` +
		`{"name":"control-plane","state":"ready","machine":"m1","address":"10.128.0.5","cpus":0.1,"mem":256,"disk":2048,"since":"` + hours + `"},` +
		`{"name":"node-1","state":"ready","machine":"m1","address":"10.128.0.6","cpus":0.5,"mem":1024,"disk":8192,"since":"` + hours + `"}]}`
	const m = "/service/marathon/v2"
	return map[string]string{
		"GET " + m + "/info":                            `{"name":"marathon"}`,
		"GET " + m + "/apps":                            `{"apps":[` + web + `,` + x + `]}`,
		"POST " + m + "/apps":                           `{"id":"/new","deployments":[{"id":"d1"}]}`,
		"GET " + m + "/apps/prod/web":                   `{"app":` + web + `}`,
		"GET " + m + "/apps/x":                          `{"app":` + x + `}`,
		"PUT " + m + "/apps/new":                        changed,
		"PATCH " + m + "/apps/x":                        changed,
		"PATCH " + m + "/apps/prod/web":                 `409|{"message":"App is locked by one or more deployments","deployments":[{"id":"d2"}]}`,
		"POST " + m + "/apps/x/restart":                 changed,
		"DELETE " + m + "/apps/x":                       changed,
		"GET " + m + "/apps/x/tasks":                    `{"tasks":[]}`,
		"GET " + m + "/tasks":                           tasks,
		"GET " + m + "/queue":                           `{"queue":[{"app":{"id":"/prod/web"},"count":1,"refusal":"1 of 2 machines has 0.2 cpus","hold":"m2"}]}`,
		"GET " + m + "/deployments":                     deployments,
		"DELETE " + m + "/deployments/d2":               changed,
		"GET /net/v1/vips":                              `[{"vip":"web.marathon.l4lb.thisdcos.directory:80","protocol":"tcp","address":"198.18.3.7:80","owner":"/prod/web","published":[{"url":"http://192.0.2.1:10000"}],"backend":[]}]`,
		"GET /tasks/v1/x.instance-1._app.1":             `{"status":{"pid":4711,"message":"all is well"}}`,
		"GET /tasks/v1/x.instance-1._app.1/logs/stdout": "one\ntwo\nthree\n",
		"GET /tasks/v1/x.instance-1._app.1/logs/stderr": "oops\n",
		"GET /machines/v1":                              `{"machines":[` + machine + `,{"id":"m-2","hostname":"two","address":"192.0.2.2","away":"` + hours + `"},{"id":"m-3","hostname":"three","address":"192.0.2.3"}]}`,
		"GET /machines/v1/m-1":                          machine,
		"PUT /machines/v1/m-1/reserved/prod":            `{"role":"/prod"}`,
		"DELETE /machines/v1/m-1/reserved/prod":         ``,
		"GET /quota/v1":                                 quotas,
		"PUT /quota/v1/prod":                            `{"role":"/prod"}`,
		"DELETE /quota/v1/prod":                         ``,
		"GET /images/v1":                                `{"images":[{"name":"docker.io/library/nginx:1","digest":"sha256:0123456789abcdef0123","size":52428800}]}`,
		"POST /images/v1":                               `{"images":[{"name":"docker.io/library/new:1","digest":"sha256:00ff","size":3000}]}`,
		"DELETE /images/v1/nginx:1":                     ``,
		"GET /kubernetes/v1/clusters":                   `{"clusters":[` + cluster + `]}`,
		"POST /kubernetes/v1/clusters":                  `201|` + cluster,
		"GET /kubernetes/v1/clusters/demo":              cluster,
		"PUT /kubernetes/v1/clusters/demo":              cluster,
		"DELETE /kubernetes/v1/clusters/demo":           `202|` + cluster,
		"GET /kubernetes/v1/clusters/demo/events":       `{"events":[{"time":"` + days + `","cluster":"demo","message":"created"},{"time":"` + hours + `","cluster":"demo","message":"ready"}]}`,
		"GET /kubernetes/v1/clusters/demo/kubeconfig":   kubeconfigFrom("demo", ""),
		"POST /kubernetes/v1/clusters/demo/images":      `{"images":["docker.io/library/new:1"],"nodes":1}`,
		"GET /kubernetes/v1/versions":                   `{"versions":[{"minor":"1.37","release":"v1.37.2","machines":1,"default":true},{"minor":"1.36"}]}`,
		"GET /acs/api/v1/tokens":                        `{"array":[{"id":"t1","uid":"root","description":"laptop","issued":"` + days + `","expires":"` + hours + `"}]}`,
		"POST /acs/api/v1/tokens":                       `{"token":"secret","id":"t2","expires":"` + hours + `"}`,
		"DELETE /acs/api/v1/tokens/t1":                  ``,
		"GET /system/health/v1":                         `{"units":[` + wellUnits + `]}`,
	}
}
