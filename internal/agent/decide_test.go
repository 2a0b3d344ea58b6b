package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// TestRecoveryFollowsTheContainers reads: for each task its phase and what is found of it, then what is done and the
// states its tasks end in.
func TestRecoveryFollowsTheContainers(t *testing.T) {
	then := time.Unix(5000, 0)
	finds := map[string]func(id string) (runtime.Found, bool){
		"none": func(string) (runtime.Found, bool) { return runtime.Found{}, false },
		"made": func(id string) (runtime.Found, bool) { return runtime.Found{ID: id}, true },
		"runs": func(id string) (runtime.Found, bool) {
			return runtime.Found{ID: id, Running: true, Process: runtime.Process{PID: 7, Started: then}}, true
		},
		"reused": func(id string) (runtime.Found, bool) {
			return runtime.Found{ID: id, Running: true, Process: runtime.Process{PID: 7, Started: then.Add(time.Hour)}}, true
		},
		"exited": func(id string) (runtime.Found, bool) {
			return runtime.Found{ID: id, Process: runtime.Process{PID: 7, Started: then}, Exit: &runtime.Exit{ID: id}}, true
		},
		"oom": func(id string) (runtime.Found, bool) {
			return runtime.Found{ID: id, Process: runtime.Process{PID: 7, Started: then}, Exit: &runtime.Exit{ID: id, Code: 137, OOM: true}}, true
		},
		"unknown": func(id string) (runtime.Found, bool) {
			return runtime.Found{ID: id, Process: runtime.Process{PID: 7, Started: then}}, true
		},
	}
	for _, c := range []struct{ tasks, want string }{
		{"created none", "start"},
		{"created made", "start"},
		{"created runs", "watch"},
		{"created exited", "finish FINISHED/exit"},
		{"started runs", "watch"},
		{"started reused", "finish FAILED/vanished"},
		{"started none", "finish FAILED/vanished"},
		{"started unknown", "finish FAILED/vanished"},
		{"started oom", "finish FAILED/oom"},
		{"started runs, started runs", "watch"},
		{"started runs, created made", "start"},
		{"started runs, started exited", "finish KILLED/killed FINISHED/exit"},
		{"started exited, created none", "finish FINISHED/exit KILLED/killed"},
		{"started none reboot", "finish LOST/reboot"},
		{"created none reboot", "finish LOST/reboot"},
		{"ended none", "clean"},
		{"killing runs", "finish KILLED/killed"},
		{"killing exited", "finish KILLED/killed"},
	} {
		t.Run(c.tasks, func(t *testing.T) {
			var s kernel.Spec
			parts := strings.Split(c.tasks, ", ")
			for i := range parts {
				s.Tasks = append(s.Tasks, kernel.TaskSpec{Name: fmt.Sprint(i), Suffix: fmt.Sprintf(".%d", i)})
			}
			rec := newRecord(agentRecord{ID: "a"}, "boot", kernel.Assignment{ID: "g"}, s)
			found := map[string]runtime.Found{}
			boot := "boot"
			for i, part := range parts {
				words := strings.Fields(part)
				r := &rec.Tasks[i]
				r.Phase, r.Status.State = phase(words[0]), kernel.Starting
				switch words[0] {
				case "started":
					r.Status.State, r.Status.PID, r.Status.Started = kernel.Running, 7, then
				case "killing":
					r.Phase, r.Status.State, r.Status.PID, r.Status.Started = phaseStarted, kernel.Killing, 7, then
					rec.Ending = &ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Task: all}
				case "ended":
					r.Status.State = kernel.Finished
				}
				if f, ok := finds[words[1]](r.Container); ok {
					found[r.Container] = f
				}
				if len(words) > 2 {
					boot = "another"
				}
			}
			p := decideRecovery(rec, boot, found)
			got := [...]string{"start", "watch", "finish", "clean"}[p.do]
			if p.do == verbFinish {
				for i := range p.rec.Tasks {
					if p.facts[i].running && p.rec.Tasks[i].Status.State == kernel.Running {
						p.rec.Tasks[i].Status.State = kernel.Killing // as finish does first
					}
					v := verdict(&p.rec, i, p.facts[i])
					got += fmt.Sprintf(" %s/%s", strings.TrimPrefix(v.State.String(), "TASK_"), v.Reason)
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFramesAreCompared(t *testing.T) {
	have := map[kernel.InstanceID]bool{"a": true, "b": true}
	g := func(id kernel.InstanceID, goal kernel.Goal) kernel.Assignment {
		return kernel.Assignment{ID: id, Goal: goal}
	}
	for _, c := range []struct {
		name string
		down kernel.Down
		want frameActions
	}{
		{"nothing", kernel.Down{}, frameActions{}},
		{"sync with the same", kernel.Down{Sync: true, Assignments: []kernel.Assignment{g("b", "run"), g("a", "run")}},
			frameActions{resize: []kernel.Assignment{g("a", "run"), g("b", "run")}}}, // each compares its own
		{"sync with nothing", kernel.Down{Sync: true}, frameActions{forget: []kernel.InstanceID{"a", "b"}}},
		{"sync with others", kernel.Down{Sync: true, Assignments: []kernel.Assignment{g("d", "run"), g("c", "stop"), g("a", "stop")}},
			frameActions{begin: []kernel.Assignment{g("c", "stop"), g("d", "run")}, stop: []kernel.Assignment{g("a", "stop")}, forget: []kernel.InstanceID{"b"}}},
		{"changes", kernel.Down{Assignments: []kernel.Assignment{g("c", "run"), g("c", "run"), g("a", "stop")}, Drop: []kernel.InstanceID{"b", "b", "z"}},
			frameActions{begin: []kernel.Assignment{g("c", "run")}, stop: []kernel.Assignment{g("a", "stop")}, forget: []kernel.InstanceID{"b"}}},
	} {
		if d := cmp.Diff(decideFrame(have, &c.down), c.want, cmp.AllowUnexported(frameActions{}),
			cmp.Comparer(func(a, b kernel.Assignment) bool { return a.ID == b.ID && a.Goal == b.Goal })); d != "" {
			t.Errorf("%s: got -, want +:\n%s", c.name, d)
		}
	}
}
