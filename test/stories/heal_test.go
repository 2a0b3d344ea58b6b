package stories

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/test/testbed"
)

// leaveLimit bounds the time after a task's end in which a new connection by its VIP may still meet it.
const leaveLimit = time.Second

func TestAKilledContainerIsBackAfterItsBackoff(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/killed"
	const backoff = time.Second
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 2).With(testbed.Definition{"backoffSeconds": int(backoff.Seconds())}))
	caller := testbed.NewCaller(c.VIP(t, id), 10*time.Millisecond, nil)
	victim := running(t, h, id)[0]

	killed := time.Now()
	if err := unix.Kill(victim.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var next testbed.Life
	testbed.Until(t, 20*time.Second, "a replacement", func() error {
		for _, l := range alive(t, h, id) {
			if l.Start.After(killed) {
				next = l
				return nil
			}
		}
		return fmt.Errorf("none: %v", running(t, h, id))
	})
	took := next.Start.Sub(killed)
	t.Logf("killed, and running again after %v with a backoff of %v", took, backoff)
	if took < backoff || took > backoff+5*time.Second {
		t.Errorf("the replacement started after %v, want after %v and not much later", took, backoff)
	}
	c.Settle(t, id, 30*time.Second)
	if f := c.App(t, id).LastFailure; f == nil || f.TaskID != victim.Task || f.State != "TASK_FAILED" {
		t.Errorf("lastTaskFailure: got %+v, want TASK_FAILED of %s", f, victim.Task)
	}
	calls := caller.Stop()
	for _, f := range testbed.Failed(calls) {
		if f.Begin.After(killed.Add(leaveLimit)) {
			t.Errorf("a call %v after the task's end still failed: %v", f.Begin.Sub(killed), f.Err)
		}
	}
	for _, call := range calls {
		if call.Task == victim.Task && call.Begin.After(killed) {
			t.Errorf("%s answered after it was killed", victim.Task)
		}
	}
}

func TestAKilledShimFailsItsTaskAndNoOther(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/shimless"
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 2).With(testbed.Definition{"backoffSeconds": 0}))
	was := running(t, h, id)
	victim, other := was[0], was[1]
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", victim.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), "PPid:")
	shim, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", shim)); err != nil ||
		!strings.HasSuffix(exe, "containerd-shim-runc-v2") {
		t.Fatalf("the parent of a task is %q, %v, want a shim", exe, err)
	}
	killed := time.Now()
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testbed.Until(t, 15*time.Second, "the failure of the task", func() error {
		if f := c.App(t, id).LastFailure; f == nil || f.TaskID != victim.Task || f.State != "TASK_FAILED" || f.Message == "" {
			return fmt.Errorf("lastTaskFailure %+v, want TASK_FAILED of %s", f, victim.Task)
		}
		return nil
	})
	t.Logf("told %v after the shim was killed", time.Since(killed))
	c.Settle(t, id, 30*time.Second)
	now := running(t, h, id)
	if len(now) != 2 || !slices.Contains(now, other) || slices.Contains(now, victim) {
		t.Errorf("%v run, want %v and a replacement of %v", now, other, victim)
	}
}

func TestAnInstanceThatTurnsSickLeavesTheVIPAndIsReplaced(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/sick"
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 2)) // asked each second, sick after two failures
	caller := testbed.NewCaller(c.VIP(t, id), 10*time.Millisecond, nil)
	victim := c.App(t, id).Tasks[0]
	turned := time.Now()
	post(t, "http://"+victim.Address()+":8080/sick")

	testbed.Until(t, 30*time.Second, "the end of the sick task", func() error {
		for _, p := range running(t, h, id) {
			if p.Task == victim.ID {
				return fmt.Errorf("it still runs")
			}
		}
		return nil
	})
	c.Settle(t, id, 30*time.Second)
	calls := caller.Stop()
	report(t, "while an instance was sick", calls)
	var last time.Duration
	for _, call := range calls {
		if call.Task == victim.ID && call.New {
			last = max(last, call.Begin.Sub(turned))
		}
	}
	t.Logf("sick at 0, last new connection to it after %v", last)
	if last > 8*time.Second {
		t.Errorf("the VIP led to the sick instance for %v", last)
	}
	if n := len(running(t, h, id)); n != 2 {
		t.Errorf("%d processes, want 2", n)
	}
}

func TestARollingUpdateLosesNoRequest(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/rolls"
	removeAfter(t, c, id)
	app := h.ProbeApp(id, 3)
	c.Deploy(t, app)
	caller := testbed.NewCaller(c.VIP(t, id), 5*time.Millisecond, nil)
	for _, version := range []string{"1", "2"} {
		c.Deploy(t, app.With(testbed.Definition{"env": testbed.Definition{"VERSION": version}}))
	}
	c.Ask(t, "PATCH", testbed.Marathon+"/apps"+id, testbed.Definition{"instances": 1}, 200, nil)
	c.Settle(t, id, 30*time.Second)
	calls := caller.Stop()
	t.Logf("%d calls through two rolling updates and a scaling down, p99 %v", len(calls),
		testbed.Percentile(testbed.Times(calls), 0.99))
	report(t, "during rolling updates", calls)

	lives, err := h.Lives(id)
	if err != nil {
		t.Fatal(err)
	}
	terms := map[string]time.Time{}
	for _, l := range lives {
		terms[l.Task] = l.Term
	}
	for _, call := range calls {
		if term := terms[call.Task]; call.New && !term.IsZero() && call.Begin.After(term) {
			t.Errorf("a new connection met %s %v after it was told to stop", call.Task, call.Begin.Sub(term))
		}
	}
	bounded(t, lives, 6)
}

func TestATaskThatIgnoresTermIsKilledAfterItsGrace(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/deaf"
	const grace = 2 * time.Second
	c.Deploy(t, h.ProbeApp(id, 1).With(testbed.Definition{
		"env": testbed.Definition{"IGNORE_TERM": "yes"}, "taskKillGracePeriodSeconds": int(grace.Seconds())}))
	begin := time.Now()
	c.Remove(t, id)
	lives, err := h.Lives(id)
	if err != nil || len(lives) != 1 {
		t.Fatalf("lives: %v, %v, want one", lives, err)
	}
	l := lives[0]
	if l.Term.IsZero() || l.Last.Sub(l.Term) < grace-500*time.Millisecond {
		t.Errorf("told to stop at %v, alive until %v: want a grace of %v", l.Term, l.Last, grace)
	}
	if took := time.Since(begin); took > grace+5*time.Second {
		t.Errorf("removing it took %v with a grace of %v", took, grace)
	}
	if n := len(running(t, h, id)); n != 0 {
		t.Errorf("%d processes after the removal, want none", n)
	}
}

// post asks a task to do something to itself.
func post(t *testing.T, url string) *http.Response {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second}
	resp, err := client.Post(url, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}
