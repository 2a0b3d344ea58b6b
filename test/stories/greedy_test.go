package stories

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// processLimit bounds the processes and threads of one task.
const processLimit = 4096

func TestGreedyTasksAreStoppedAndTheirNeighbourDoesNotNotice(t *testing.T) {
	h, c := datacenter(t)
	removeAfter(t, c, "/well")
	c.Deploy(t, h.ProbeApp("/well", 1))
	well := running(t, h, "/well")
	caller := testbed.NewCaller(c.VIP(t, "/well"), 10*time.Millisecond, nil)

	t.Run("disk", func(t *testing.T) {
		task, address := greedy(t, h, c, h.ProbeApp("/fills", 1).With(testbed.Definition{"disk": 16}))
		post(t, "http://"+address+":8080/write?mib=64")
		failed(t, c, "/fills", task, "disk", "16 MiB")
	})
	t.Run("layer", func(t *testing.T) {
		task, address := greedy(t, h, c, h.ProbeApp("/layers", 1).With(testbed.Definition{"disk": 16, "user": "root"}))
		post(t, "http://"+address+":8080/write?mib=64&at=/")
		failed(t, c, "/layers", task, "disk", "16 MiB")
	})
	t.Run("memory", func(t *testing.T) {
		task, address := greedy(t, h, c, h.ProbeApp("/eats", 1).With(testbed.Definition{"mem": 48}))
		client := &http.Client{Timeout: 20 * time.Second}
		if resp, err := client.Post("http://"+address+":8080/eat?mib=256", "", nil); err == nil {
			resp.Body.Close()
			t.Errorf("eating 256 MiB of 48 got an answer: %s", resp.Status)
		}
		failed(t, c, "/eats", task, "oom", "memory")
	})
	t.Run("processes", func(t *testing.T) {
		const bomb = "f() { f | f & }; f; sleep 1000"
		task, _ := greedy(t, h, c, testbed.Definition{"id": "/forks", "cmd": bomb, "cpus": 0.2, "mem": 2048,
			"taskKillGracePeriodSeconds": 1})
		most := 0
		testbed.Until(t, 60*time.Second, "the bomb to go off", func() error {
			most = max(most, processes(t, h, task))
			if most > 50 || c.App(t, "/forks").LastFailure != nil {
				return nil
			}
			return fmt.Errorf("%d processes so far", most)
		})
		testbed.Always(t, 5*time.Second, "a fork bomb", func() error {
			n := processes(t, h, task)
			if most = max(most, n); n > processLimit {
				return fmt.Errorf("%d processes, the limit is %d", n, processLimit)
			}
			return nil
		})
		t.Logf("the fork bomb had at most %d processes", most)
		c.Remove(t, "/forks")
		if n := processes(t, h, task); n != 0 {
			t.Errorf("%d processes of it are left", n)
		}
	})

	calls := caller.Stop()
	t.Logf("the neighbour beside all of it: %d calls, p50 %v, p99 %v", len(calls),
		testbed.Percentile(testbed.Times(calls), 0.5), testbed.Percentile(testbed.Times(calls), 0.99))
	report(t, "beside greedy tasks", calls)
	if now := running(t, h, "/well"); len(now) != 1 || now[0] != well[0] {
		t.Errorf("the neighbour: was %v, is %v", well, now)
	}
}

// greedy deploys an app that is up to no good and returns its task and the task's address. It does not stay.
func greedy(t *testing.T, h *testbed.Datacenter, c *testbed.Client, app testbed.Definition) (task, address string) {
	t.Helper()
	id := app["id"].(string)
	c.Deploy(t, app)
	t.Cleanup(func() {
		if _, err := c.Show(id); err == nil {
			c.Remove(t, id)
		}
	})
	first := c.App(t, id).Tasks[0]
	return first.ID, first.Address()
}

// failed waits until a task has failed for a reason that is told to programs and, in words, to people.
func failed(t *testing.T, c *testbed.Client, app, task, reason, words string) {
	t.Helper()
	testbed.Until(t, 45*time.Second, "the end of "+task, func() error {
		f := c.App(t, app).LastFailure
		if f == nil || f.TaskID != task {
			return fmt.Errorf("lastTaskFailure %+v", f)
		}
		if f.State != "TASK_FAILED" || !strings.Contains(f.Message, words) {
			t.Errorf("lastTaskFailure: got %+v, want TASK_FAILED with %q", f, words)
		}
		return nil
	})
	var known struct {
		Status struct{ State, Reason, Message string }
	}
	c.Ask(t, "GET", testbed.TaskPath(task), nil, 200, &known)
	if known.Status.State != "TASK_FAILED" || known.Status.Reason != reason {
		t.Errorf("task %s: got %+v, want TASK_FAILED for %s", task, known.Status, reason)
	}
}

// processes counts what the kernel has in a task's group of processes.
func processes(t *testing.T, h *testbed.Datacenter, task string) int {
	t.Helper()
	uuid := task[strings.Index(task, ".instance-")+len(".instance-"):]
	uuid, _, _ = strings.Cut(uuid, ".")
	n := 0
	filepath.WalkDir("/sys/fs/cgroup/pids/marina-"+h.ID, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "cgroup.procs" && strings.Contains(path, uuid[len(uuid)-12:]) {
			b, _ := os.ReadFile(path)
			n += strings.Count(string(b), "\n")
		}
		return nil
	})
	return n
}
