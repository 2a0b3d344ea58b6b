package stories

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

func TestBadInputIsRefusedInClearWordsAndLosesNothing(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/witness"
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 1))
	before, version := running(t, h, id), c.App(t, id).Version

	long := strings.Repeat("a", 10_000)
	app := func(id, rest string) string { return fmt.Sprintf(`{"id":%q,"cmd":"sleep 1"%s}`, id, rest) }
	for _, bad := range []struct {
		name   string
		body   any
		status int
		words  string
	}{
		{"nothing", ``, 400, "unexpected end of input"},
		{"cut off", `{"id":"/bad"`, 400, "unexpected end of input"},
		{"not JSON", `id=/bad`, 400, "invalid character"},
		{"two values", app("/bad", "") + "{}", 400, "something follows"},
		{"a key twice", `{"id":"/bad","id":"/worse","cmd":"sleep 1"}`, 400, "stands twice"},
		{"not UTF-8", "{\"id\":\"/bad\",\"cmd\":\"\xff\xfe\"}", 400, "not valid UTF-8"},
		{"too large", bytes.Repeat([]byte(" "), 3<<20), 413, "limit"},
		{"too deep", strings.Repeat("[", 200_000), 400, "levels of nesting"},
		{"a list", `[1]`, 422, "error.expected.jsobject"},
		{"no id", `{"cmd":"sleep 1"}`, 422, "error.path.missing"},
		{"id a number", `{"id":5,"cmd":"sleep 1"}`, 422, "error.expected.jsstring"},
		{"instances text", app("/bad", `,"instances":"3"`), 422, "error.expected.jsnumber"},
		{"instances a half", app("/bad", `,"instances":1.5`), 422, "error.expected.int"},
		{"instances below zero", app("/bad", `,"instances":-1`), 422, "error.min"},
		{"env a list", app("/bad", `,"env":["A"]`), 422, "error.expected.jsobject"},
		{"args text", `{"id":"/bad","args":"x"}`, 422, "error.expected.jsarray"},
		{"cpus huge", app("/bad", `,"cpus":1e308`), 422, "error.max"},
		{"cpus beyond numbers", app("/bad", `,"cpus":1e999`), 422, "error.max"},
		{"cpus below zero", app("/bad", `,"cpus":-1`), 422, "error.min"},
		{"mem below zero", app("/bad", `,"mem":-1e308`), 422, "error.min"},
		{"mem no number", app("/bad", `,"mem":NaN`), 400, "invalid character"},
		{"neither command nor image", `{"id":"/bad"}`, 422, "AppDefinition must either contain one of 'cmd' or 'args'"},
		{"unknown health protocol", app("/bad", `,"healthChecks":[{"protocol":"SMTP"}]`), 422, "error.unknown.enum.literal"},
		{"known but not built", app("/bad", `,"fetch":[{"uri":"http://x/y"}]`), 422, "fetch is not supported by this version"},
		{"a directory of the machine", app("/bad", `,"container":{"type":"MESOS","volumes":[{"containerPath":"/x","hostPath":"/etc","mode":"RW"}]}`), 422, "lends /etc to no task"},
		{"a VIP without a port", `{"id":"/bad","cmd":"sleep 1","portDefinitions":[{"labels":{"VIP_0":"/x"}}]}`, 422, "VIP"},
		{"no name", app("", ""), 422, "Path must contain at least one path element"},
		{"the root", app("/", ""), 422, "must not be root"},
		{"a way up", app("/a/..", ""), 422, "must not"},
		{"a way up out", app("/../../..", ""), 422, "must not"},
		{"unicode", app("/grüße", ""), 422, "must fully match"},
		{"look-alike", app("/аpp", ""), 422, "must fully match"}, // a Cyrillic letter
		{"capitals", app("/Bad", ""), 422, "must fully match"},
		{"a space", app("/b ad", ""), 422, "must fully match"},
		{"a zero byte", `{"id":"/b\u0000ad","cmd":"sleep 1"}`, 422, "must fully match"},
		{"10,000 characters", app("/"+long, ""), 422, "must be at most"},
		{"10,000 groups", app(strings.Repeat("/a", 10_000), ""), 422, "must be at most"},
		{"a reserved word", app("/bad/restart", ""), 422, "reserved keywords"},
		{"another reserved word", app("/tasks", ""), 422, "reserved keywords"},
		{"a group of an app", app(id+"/below", ""), 422, "may not have the same identifier"},
		{"an app twice", app(id, ""), 409, "already exists"},
		{"a megabyte of environment", app("/bad", `,"env":{"A":"`+strings.Repeat("x", 1<<20)+`"}`), 422, "bytes"},
	} {
		a, err := c.Do("POST", testbed.Marathon+"/apps", bad.body)
		if err != nil || a.Status != bad.status || !strings.Contains(string(a.Body), bad.words) || len(a.Body) > 20_000 {
			t.Errorf("%s: got %.500s, %v, want %d with %q", bad.name, a, err, bad.status, bad.words)
		}
	}
	for path, statuses := range map[string][]int{
		"/v2/apps/..%2f..%2fetc%2fpasswd": {400, 404}, "/v2/apps/%2e%2e/%2e%2e/x": {400, 404}, "/v2/apps/" + long: {404, 414, 400},
		"/v2/apps/%00": {400, 404}, "/v2/apps/" + strings.Repeat("a/", 5000): {404, 414, 400},
		"/tasks/v1/..%2f..%2f/logs/stdout": {400, 404}, "/tasks/v1/" + long + "/files/": {400, 404},
		"/machines/v1/..%2f": {400, 404}, "/v2/deployments/..": {400, 404}, "/v2/apps/witness/versions/x": {404},
	} {
		if a, err := c.Do("GET", path, nil); err != nil || !slices.Contains(statuses, a.Status) {
			t.Errorf("GET %.80s: got %.300s, %v, want one of %v", path, a, err, statuses)
		}
	}
	var all struct{ Apps []testbed.App }
	c.Ask(t, "GET", testbed.Marathon+"/apps?id=bad", nil, 200, &all)
	if len(all.Apps) != 0 {
		t.Errorf("refused apps are there: %+v", all)
	}
	if now := running(t, h, id); !slices.Equal(now, before) || c.App(t, id).Version != version {
		t.Errorf("bad input touched %s: had %v, has %v", id, before, now)
	}
}

func TestAnUnknownImageIsNamedWhereOneLooks(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/noimage"
	removeAfter(t, c, id)
	c.Ask(t, "POST", testbed.Marathon+"/apps", h.ProbeApp(id, 1).With(testbed.Definition{
		"container": testbed.Definition{"type": "MESOS", "docker": testbed.Definition{"image": "localhost:1/no/such:thing"}}}), 201, nil)
	testbed.Until(t, 30*time.Second, "a failure that names the image", func() error {
		f := c.App(t, id).LastFailure
		if f == nil || !strings.Contains(f.Message, "no/such:thing") {
			return fmt.Errorf("lastTaskFailure %+v", f)
		}
		return nil
	})
	testbed.Until(t, 10*time.Second, "the queue to show it", func() error {
		if _, ok := queue(t, c)[id]; !ok {
			return fmt.Errorf("it is not there")
		}
		return nil
	})
}

// queued is an app that waits.
type queued struct {
	App       testbed.App
	Refusal   string
	Delay     struct{ TimeLeftSeconds int }
	Processed struct {
		Rejects []struct {
			Reason   string
			Declined int
		} `json:"rejectSummaryLastOffers"`
	} `json:"processedOffersSummary"`
}

// queue is /v2/queue by app.
func queue(t *testing.T, c *testbed.Client) map[string]queued {
	t.Helper()
	var q struct{ Queue []queued }
	c.Ask(t, "GET", testbed.Marathon+"/queue", nil, 200, &q)
	out := map[string]queued{}
	for _, i := range q.Queue {
		out[i.App.ID] = i
	}
	return out
}

func TestACommandThatExitsAtOnceIsLaunchedEverLessOften(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/exits"
	const watched = 20 * time.Second
	removeAfter(t, c, id)
	begin := time.Now()
	c.Ask(t, "POST", testbed.Marathon+"/apps", h.ProbeApp(id, 1).With(testbed.Definition{
		"env": testbed.Definition{"EXIT_AT_ONCE": "3"}, "backoffSeconds": 1, "backoffFactor": 2, "maxLaunchDelaySeconds": 60}), 201, nil)
	starts := func() int {
		all, err := h.Records(testbed.Prefix(id))
		if err != nil {
			t.Fatal(err)
		}
		return testbed.Events(all, "start")
	}
	delayed := false
	testbed.Until(t, watched+10*time.Second, "20 seconds to pass", func() error {
		delayed = delayed || queue(t, c)[id].Delay.TimeLeftSeconds > 0
		if n := starts(); n > 7 {
			t.Fatalf("%d launches after %v: a storm", n, time.Since(begin))
		}
		if left := watched - time.Since(begin); left > 0 {
			return fmt.Errorf("%v to go", left)
		}
		return nil
	})
	n := starts()
	t.Logf("%d launches in %v: at 0, 1, 3, 7 and 15 seconds plus starting times are 5", n, watched)
	if n < 3 || n > 6 {
		t.Errorf("%d launches in %v, want 3 to 6", n, watched)
	}
	if !delayed {
		t.Error("the queue never showed a delay")
	}
	if f := c.App(t, id).LastFailure; f == nil || f.State != "TASK_FAILED" || !strings.Contains(f.Message, "3") {
		t.Errorf("lastTaskFailure: got %+v, want TASK_FAILED with exit code 3", f)
	}
}

func TestAnAppTooLargeIsExplainedAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	removeAfter(t, c, "/giant")
	c.Ask(t, "POST", testbed.Marathon+"/apps", testbed.Definition{"id": "/giant", "cmd": "sleep 1000", "cpus": 0.1, "mem": 10_000_000}, 201, nil)
	removeAfter(t, c, "/beside")
	c.Deploy(t, h.ProbeApp("/beside", 1))

	const want = "0 of 1 machines fit: 1 lack mem (asks "
	got := queue(t, c)["/giant"]
	if !strings.HasPrefix(got.Refusal, want) {
		t.Errorf("queue: got %+v, want a refusal that begins with %q", got, want)
	}
	for _, r := range got.Processed.Rejects {
		if (r.Reason == "InsufficientMemory") != (r.Declined == 1) {
			t.Errorf("queue: %s declined %d, want InsufficientMemory to decline 1 and nothing else", r.Reason, r.Declined)
		}
	}
	if text := h.Must(t, "deployment", "list"); !strings.Contains(text, want) {
		t.Errorf("deployment list: got %q, want it to say %q", text, want)
	}
}

func TestTwoHundredConflictingUpdatesEndInOneOfThem(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/fought-over"
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 1).With(testbed.Definition{"healthChecks": []any{}}))

	type outcome struct {
		n, status int
		version   string
	}
	var mu sync.Mutex
	var all []outcome
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			force := ""
			if n%10 == 0 {
				force = "?force=true"
			}
			var r struct{ Version string }
			a, err := c.Do("PATCH", testbed.Marathon+"/apps"+id+force, testbed.Definition{"instances": 1 + n%2, "env": testbed.Definition{"VERSION": fmt.Sprint(n)}})
			if err != nil {
				t.Errorf("update %d: %v", n, err)
				return
			}
			if a.Status == 200 {
				decode(t, string(a.Body), &r)
			} else if a.Status != 409 || !strings.Contains(string(a.Body), "App is locked by one or more deployments") {
				t.Errorf("update %d: got %v, want 200 or 409", n, a)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, outcome{n, a.Status, r.Version})
		})
	}
	wg.Wait()
	last := outcome{}
	accepted := 0
	for _, o := range all {
		if o.status == 200 {
			accepted++
			if o.version > last.version {
				last = o
			}
		}
	}
	t.Logf("%d of 200 were accepted, the last of them %d", accepted, last.n)
	if accepted < 20 {
		t.Errorf("%d updates were accepted, at least those 20 that force must be", accepted)
	}
	c.Settle(t, id, 90*time.Second)
	a := c.App(t, id)
	if a.Version != last.version || a.Env["VERSION"] != fmt.Sprint(last.n) || a.Instances != 1+last.n%2 {
		t.Errorf("the app is %+v, want what update %d of version %s said", a, last.n, last.version)
	}
	now := alive(t, h, id)
	for _, l := range now {
		if l.Version != fmt.Sprint(last.n) {
			t.Errorf("task %s runs version %s, want %d", l.Task, l.Version, last.n)
		}
	}
	if len(now) != a.Instances {
		t.Errorf("%d processes, want %d", len(now), a.Instances)
	}
	adopted(t, h, c, id)
}

func TestAHostPortSomebodyElseHasIsRefusedByName(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/wants-port"
	var machines struct {
		Machines []struct {
			Ports struct{ First, Last int }
		}
	}
	decode(t, h.Must(t, "machine", "list", "--json"), &machines)
	ports := machines.Machines[0].Ports
	var foreign net.Listener
	port := 0
	for p := ports.Last; p > ports.First && foreign == nil; p-- {
		if l, err := net.Listen("tcp4", fmt.Sprintf(":%d", p)); err == nil {
			foreign, port = l, p
		}
	}
	if foreign == nil {
		t.Fatalf("no port of %+v is free", ports)
	}
	defer foreign.Close()
	app := h.ProbeApp(id, 1)
	app["container"].(testbed.Definition)["portMappings"].([]any)[0].(testbed.Definition)["hostPort"] = port
	removeAfter(t, c, id)
	c.Ask(t, "POST", testbed.Marathon+"/apps", app, 201, nil)
	want := fmt.Sprintf("process %d (", os.Getpid())
	testbed.Until(t, 20*time.Second, "a failure that names this process", func() error {
		f := c.App(t, id).LastFailure
		if f == nil || !strings.Contains(f.Message, fmt.Sprint(port)) || !strings.Contains(f.Message, want) {
			return fmt.Errorf("lastTaskFailure %+v, want port %d and %q", f, port, want)
		}
		return nil
	})
	foreign.Close()
	c.Settle(t, id, 60*time.Second) // and it runs once the port is free
	if who, err := testbed.Who(fmt.Sprintf("127.0.0.1:%d", port)); err != nil || !strings.HasPrefix(who, testbed.Prefix(id)) {
		t.Errorf("the port: got an answer of %q, %v, want one of %s", who, err, id)
	}
}
