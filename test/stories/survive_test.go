package stories

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/test/testbed"
)

const (
	kills     = 20
	killsEach = 4 // in one rolling deployment
	killsSeed = 2024
)

func TestTwentyKillsOfEveryPartChangeNoTask(t *testing.T) {
	h, c := own(t)
	c.Deploy(t, h.ProbeApp("/steady", 2))
	c.Deploy(t, h.ProbeApp("/rolling", 3).With(testbed.Definition{"env": testbed.Definition{"VERSION": "0"}}))
	steady := running(t, h, "/steady")
	vip := c.VIP(t, "/steady")
	events := witnessEvents(h, c)
	names := askNames(t.Context(), "http://"+c.App(t, "/steady").Tasks[0].Address()+":8080/lookup?name=steady.marathon.l4lb.thisdcos.directory", vip)
	callers := map[string]*testbed.Caller{"steady": testbed.NewCaller(vip, 20*time.Millisecond, nil),
		"rolling": testbed.NewCaller(c.VIP(t, "/rolling"), 20*time.Millisecond, nil)}

	rollAndKill(t, h, c)

	if got := running(t, h, "/steady"); !slices.Equal(got, steady) {
		t.Errorf("tasks nobody touched: had %v, has %v", steady, got)
	}
	for _, app := range []string{"/steady", "/rolling"} {
		adopted(t, h, c, app)
	}
	for name, caller := range callers {
		calls := caller.Stop()
		t.Logf("%s: %d calls, p99 %v", name, len(calls), testbed.Percentile(testbed.Times(calls), 0.99))
		report(t, "while everything was killed, "+name, calls)
	}
	lives, err := h.Lives("/rolling")
	if err != nil {
		t.Fatal(err)
	}
	bounded(t, lives, 6)
	for what, tell := range map[string]func() (int, []string){"answers for a name": names, "status events": events} {
		n, wrong := tell()
		t.Logf("%d %s", n, what)
		for _, w := range wrong {
			t.Errorf("while everything was killed, %s: %s", what, w)
		}
		if n == 0 {
			t.Errorf("there were no %s: they prove nothing", what)
		}
	}
}

// rollAndKill changes /rolling again and again and kills a part of the datacenter at a random moment, killsEach times a
// change, until there were enough. Each change must come to its end.
func rollAndKill(t *testing.T, h *testbed.Datacenter, c *testbed.Client) {
	t.Helper()
	seed := uint64(killsSeed)
	if s, err := strconv.ParseUint(os.Getenv("MARINA_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d: MARINA_SEED=%d plays it again", seed, seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	killed := map[string]int{}
	for version := 1; version <= kills/killsEach; version++ {
		change := testbed.Definition{"env": testbed.Definition{"VERSION": strconv.Itoa(version)}}
		testbed.Until(t, 30*time.Second, "a deployment to begin", func() error {
			a, err := c.Do("PATCH", testbed.Marathon+"/apps/rolling?force=true", change)
			if err == nil && a.Status != 200 {
				err = fmt.Errorf("%v", a)
			}
			return err
		})
		for range killsEach {
			victim := []string{"daemon", "agent", "containerd"}[rng.IntN(3)]
			moment := time.Now().Add(time.Duration(rng.IntN(700)) * time.Millisecond)
			testbed.Until(t, time.Second, "the moment of a kill", func() error {
				if left := time.Until(moment); left > 0 {
					return fmt.Errorf("%v to go", left)
				}
				return nil
			})
			kill(t, h, victim)
			killed[victim]++
			if victim == "daemon" { // nobody but a person starts it again
				if _, err := h.Up(); err != nil {
					t.Fatalf("up after kill %v: %v", killed, err)
				}
			}
		}
		c.Settle(t, "/rolling", 90*time.Second)
		for _, l := range alive(t, h, "/rolling") {
			if l.Version != strconv.Itoa(version) {
				t.Errorf("after deployment %d task %s is of version %s", version, l.Task, l.Version)
			}
		}
	}
	t.Logf("killed %v", killed)
}

// witnessEvents follows the event stream, again and again, until the returned function is called: it tells how many
// statuses came and which of them contradict an end that was told before.
func witnessEvents(h *testbed.Datacenter, c *testbed.Client) func() (int, []string) {
	ctx, cancel := context.WithCancel(context.Background())
	var ends invariant.Terminals
	var wrong []string
	n := 0
	stream := func() {
		req, err := http.NewRequestWithContext(ctx, "GET", c.Base+testbed.Marathon+"/events?event_type=status_update_event", nil)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", c.Auth)
		req.Header.Set("Accept", "text/event-stream")
		resp, err := (&http.Client{Transport: c.HTTPS.Transport}).Do(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var e struct {
				TaskID     kernel.TaskID
				TaskStatus kernel.State
			}
			if !ok || json.Unmarshal([]byte(data), &e) != nil {
				continue
			}
			n++
			for _, v := range ends.Observe(e.TaskID, e.TaskStatus) {
				wrong = append(wrong, v.Error())
			}
		}
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for ctx.Err() == nil {
			stream()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return func() (int, []string) {
		cancel()
		wait.Wait()
		return n, wrong
	}
}

// askNames has a task ask for a name the whole time until the returned function is called: it tells how many answers
// there were, and which were wrong. No answer is none: the name server dies with the agent, and comes back knowing what
// it knew.
func askNames(ctx context.Context, url, vip string) func() (int, []string) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	var wrong []string
	n := 0
	want, _, _ := strings.Cut(vip, ":")
	wait.Go(func() {
		for ctx.Err() == nil {
			text, err := from(nil, url)
			switch {
			case err == nil && strings.TrimSpace(text) == want:
				n++
			case err == nil || strings.Contains(err.Error(), "no such host"):
				wrong = append(wrong, fmt.Sprintf("at %s: %q, %v", time.Now().Format("15:04:05.000"), text, err))
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() (int, []string) {
		cancel()
		wait.Wait()
		return n, wrong
	}
}

// kill ends a process of the datacenter, and waits until somebody has started its next one if somebody is to.
func kill(t *testing.T, h *testbed.Datacenter, victim string) {
	t.Helper()
	var pid int
	testbed.Until(t, 20*time.Second, "a "+victim+" to kill", func() (err error) {
		pid, err = h.PID(victim)
		if err == nil {
			err = unix.Kill(pid, unix.SIGKILL)
		}
		return err
	})
	testbed.Until(t, 10*time.Second, "the end of "+victim, func() error {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

// adopted judges that the API and the machine show the same tasks of an app, with the same processes.
func adopted(t *testing.T, h *testbed.Datacenter, c *testbed.Client, app string) {
	t.Helper()
	procs := map[string]testbed.Process{}
	for _, p := range running(t, h, app) {
		if other, twice := procs[p.Task]; twice {
			t.Errorf("task %s runs twice: %v and %v", p.Task, other, p)
		}
		procs[p.Task] = p
	}
	if _, err := h.Lives(app); err != nil {
		t.Error(err)
	}
	a := c.App(t, app)
	for _, task := range a.Tasks {
		var known struct {
			Status struct {
				PID   int
				State string
			}
		}
		c.Ask(t, "GET", testbed.TaskPath(task.ID), nil, 200, &known)
		p, ok := procs[task.ID]
		if !ok || known.Status.PID != p.PID || known.Status.State != "TASK_RUNNING" {
			t.Errorf("task %s: the datacenter says %+v, the machine %+v", task.ID, known.Status, p)
		}
		delete(procs, task.ID)
	}
	if len(procs) > 0 {
		t.Errorf("app %s: processes that no task explains: %v", app, slices.Collect(maps.Values(procs)))
	}
}

// report fails the test with what clients saw go wrong.
func report(t *testing.T, when string, calls []testbed.Call) {
	t.Helper()
	failed := testbed.Failed(calls)
	for _, f := range failed[:min(len(failed), 5)] {
		t.Errorf("%s: at %v after %v (new connection: %v): %v", when, f.Begin.Format("15:04:05.000"), f.Took, f.New, f.Err)
	}
	if len(failed) > 0 {
		t.Errorf("%s: %d of %d calls failed, want 0", when, len(failed), len(calls))
	}
	if len(calls) < 50 {
		t.Errorf("%s: only %d calls were made: they prove nothing", when, len(calls))
	}
}

// bounded judges that never more than most processes of an app lived at once.
func bounded(t *testing.T, lives []testbed.Life, most int) {
	t.Helper()
	for _, at := range lives {
		n := 0
		for _, l := range lives {
			if !l.Start.After(at.Start) && l.Last.After(at.Start) {
				n++
			}
		}
		if n > most {
			t.Errorf("%d processes lived at %v, at most %d may", n, at.Start, most)
			return
		}
	}
}
