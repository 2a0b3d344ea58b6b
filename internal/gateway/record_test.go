package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/audit"
	"github.com/marinaos/marina/internal/metrics"
)

// recordingGateway runs a gateway with an audit log and metrics.
func recordingGateway(t *testing.T, deps Deps) (*testGateway, *audit.Log) {
	t.Helper()
	log := must(audit.Open(audit.Config{Dir: t.TempDir()}))(t)
	t.Cleanup(func() { log.Close() })
	deps.Audit, deps.Metrics = log, metrics.New("test")
	return runGateway(t, Config{}, deps), log
}

// waitRecords waits until there are n records: the last one may be written after its client has the answer.
func waitRecords(t *testing.T, log *audit.Log, n int) []audit.Record {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		all := must(log.Read(t.Context(), audit.Query{Limit: 1000}))(t)
		if len(all) >= n {
			return all
		}
		select {
		case <-limit:
			t.Fatalf("%d records, want %d: %+v", len(all), n, all)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestEveryChangeAndEveryDenialIsRecorded(t *testing.T) {
	noted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		audit.Note(r.Context(), "deployment", "d-1")
		w.WriteHeader(http.StatusCreated)
	})
	d, log := recordingGateway(t, Deps{Routes: []Route{
		{Prefix: "/echo", Handler: echo}, {Prefix: "/noted", Handler: noted},
		{Prefix: "/forbidden", Handler: http.HandlerFunc(func(w http.ResponseWriter,
			_ *http.Request) {
			w.WriteHeader(403)
		})},
		{Prefix: "/panic", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("no") })},
		{Prefix: "/torn", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			panic(http.ErrAbortHandler)
		})},
		{Prefix: "/app", Unrecorded: true, Handler: echo},
	}})
	c := d.client(t, "h2")
	for _, q := range []struct{ method, path string }{
		{"GET", "/echo"}, {"POST", "/app"}, // neither is recorded
		{"PUT", "/noted/x?secret=hidden"}, {"GET", "/forbidden"}, {"DELETE", "/panic"}, {"POST", "/none"},
	} {
		do(t, c, q.method, d.url(q.path), "body", d.authorized())
	}
	do(t, c, "DELETE", d.url("/echo"), "", nil) // without a token
	r := must(http.NewRequestWithContext(t.Context(), "POST", d.url("/torn"), nil))(t)
	r.Header = d.authorized()
	if resp, err := c.Do(r); err == nil {
		resp.Body.Close()
	}
	type line struct {
		who, action, path string
		status            int
		outcome           audit.Outcome
	}
	var got []string
	for _, r := range waitRecords(t, log, 6) {
		got = append(got, fmt.Sprint(line{r.Who, r.Action, r.Path, r.Status, r.Outcome}))
		if r.From != "127.0.0.1" || r.Time.IsZero() || r.Duration <= 0 || (r.Who != "") != (r.Token != "") {
			t.Errorf("record %+v: want where from, when, how long, and which token", r)
		}
		if r.Path == "/noted/x" && r.Notes["deployment"] != "d-1" {
			t.Errorf("record %+v: want the room's note", r)
		}
	}
	want := []string{
		fmt.Sprint(line{"root", "PUT", "/noted/x", 201, audit.Done}),
		fmt.Sprint(line{"root", "GET", "/forbidden", 403, audit.Refused}),
		fmt.Sprint(line{"root", "DELETE", "/panic", 500, audit.Failed}),
		fmt.Sprint(line{"root", "POST", "/none", 404, audit.Refused}),
		fmt.Sprint(line{"", "DELETE", "/echo", 401, audit.Refused}),
		fmt.Sprint(line{"root", "POST", "/torn", 0, audit.Failed}),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("records are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestASessionIsRecordedAtItsStartAndItsEnd(t *testing.T) {
	end := make(chan struct{})
	d, log := recordingGateway(t, Deps{Routes: []Route{{Prefix: "/exec",
		Streaming: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			<-end
		})}}})
	r := must(http.NewRequestWithContext(t.Context(), "POST", d.url("/exec"), nil))(t)
	r.Header = d.authorized()
	resp := must(d.client(t, "h2").Do(r))(t)
	begun := waitRecords(t, log, 1)
	if begun[0].Phase != audit.PhaseBegun || begun[0].Outcome != audit.Begun || begun[0].Who != "root" {
		t.Errorf("while it goes on: %+v, want one record of its begin", begun)
	}
	close(end)
	resp.Body.Close()
	if all := waitRecords(t, log, 2); all[1].Phase != audit.PhaseEnded || all[1].Outcome != audit.Done ||
		all[1].Status != 200 {
		t.Errorf("after it: %+v, want one of its end too", all)
	}
}

// Requests without a token cannot push the records of others out of the log.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	d, log := recordingGateway(t, Deps{Routes: []Route{{Prefix: "/echo", Handler: echo}}})
	c := d.client(t, "h2")
	for range 3 * strangersBurst {
		do(t, c, "DELETE", d.url("/echo"), "", nil)
	}
	do(t, c, "DELETE", d.url("/echo"), "", d.authorized())
	all := waitRecords(t, log, 2)
	for all[len(all)-1].Who == "" {
		all = waitRecords(t, log, len(all)+1)
	}
	if len(all) > 2*strangersBurst {
		t.Errorf("%d records of %d refusals, want about %d", len(all), 3*strangersBurst, strangersBurst)
	}
}

func TestMetricsAndAuditNeedTheRightToReadThem(t *testing.T) {
	d, _ := recordingGateway(t, Deps{Routes: []Route{{Prefix: "/echo", Handler: echo}}})
	c := d.client(t, "h2")
	do(t, c, "GET", d.url("/echo"), "", d.authorized())
	for _, path := range []string{"/metrics", "/audit/v1"} {
		if resp, _ := do(t, c, "GET", d.url(path), "", nil); resp.StatusCode != 401 {
			t.Errorf("%s without a token: %d, want 401", path, resp.StatusCode)
		}
		if resp, body := do(t, c, "GET", d.url(path), "", d.authorized()); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s, want 200", path, resp.StatusCode, body)
		}
	}
	_, body := do(t, c, "GET", d.url("/metrics"), "", d.authorized())
	for _, want := range []string{`marina_gateway_requests_total{code="200",method="GET",route="/echo/"} 1`,
		`marina_gateway_requests_total{code="401",method="GET",route="/metrics/"} 1`,
		`marina_gateway_request_duration_seconds_count{route="/echo/"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

// Every route that is not open checks access, also the gateway's own: with an authorizer that denies, nothing answers.
func TestNothingAnswersWithoutTheRight(t *testing.T) {
	d, _ := recordingGateway(t, Deps{Access: access.Nobody{}, Health: report{}, Services: services{},
		Routes: []Route{{Prefix: "/needs", Needs: access.Images, Handler: echo}}})
	c := d.client(t, "h2")
	for _, rt := range d.routes {
		if rt.Open || rt.Asks {
			continue
		}
		resp, body := do(t, c, "GET", d.url(rt.Prefix), "", d.authorized())
		if resp.StatusCode != 403 || !strings.Contains(body, "administrator") {
			t.Errorf("%s: %d %s, want 403 that says who may give the right", rt.Prefix, resp.StatusCode, body)
		}
	}
}
