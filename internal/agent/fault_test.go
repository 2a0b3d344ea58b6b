package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

func TestVanishedContainerIsFoundMissing(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "a"})
	st := w.master.reaches("a.t0", kernel.Running)
	if err := w.procs.Remove(t.Context(), w.containerOf("a.t0")); err != nil { // behind the agent's back
		t.Fatal(err)
	}
	if st = w.master.reaches("a.t0", kernel.Failed); st.Reason != kernel.ReasonVanished {
		t.Errorf("got %+v, want vanished", st)
	}
}

func TestContainerNobodyAskedForIsRemoved(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.connected(0)
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "mine"})
	w.master.reaches("mine.t0", kernel.Running)
	ctx := t.Context()
	if err := errors.Join(w.procs.Create(ctx, runtime.Container{ID: "stray", Shell: "exec sleep 600", Labels: map[string]string{runtime.LabelGroup: "x"}}),
		w.net.OpenPorts(ctx, kernel.Attachment{Instance: "x"})); err != nil {
		t.Fatal(err)
	}
	p, err := w.procs.Start(ctx, "stray")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the other is left", func() bool {
		c := w.containers()
		attached, _ := w.net.Attached(ctx)
		return len(c) == 1 && c[0].Labels[runtime.LabelGroup] == "mine" && slices.Equal(attached, []kernel.InstanceID{"mine"})
	})
	eventually(t, "its process is gone", func() bool { return errors.Is(syscall.Kill(p.PID, 0), syscall.ESRCH) })
}

// stubborn is a runtime whose signals do nothing and whose Remove fails for a while.
type stubborn struct {
	runtime.Runtime
	refusals atomic.Int64
}

func (s *stubborn) Signal(context.Context, string, int) error { return nil }

func (s *stubborn) Remove(ctx context.Context, id string) error {
	if s.refusals.Add(-1) >= 0 {
		return errors.New("device or resource busy")
	}
	return s.Runtime.Remove(ctx, id)
}

func TestTaskThatSurvivesKILLIsSaidToBeStuck(t *testing.T) {
	w := newWorld(t)
	rt := &stubborn{Runtime: w.procs}
	rt.refusals.Store(1 << 40)
	w.rt, w.cfg.Stuck = rt, 50*time.Millisecond
	w.start()
	s := specOf("exec sleep 600")
	s.Tasks[0].KillGrace = 10 * time.Millisecond
	w.master.launch(s, kernel.Assignment{ID: "a"})
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "b"})
	w.master.reaches("a.t0", kernel.Running)
	w.master.reaches("b.t0", kernel.Running)
	w.master.end("a")
	eventually(t, "it is told", func() bool {
		st := w.master.status("a.t0")
		return st.State == kernel.Killing && strings.HasPrefix(st.Message, "stuck: ")
	})
	if st := w.master.status("b.t0"); st.State != kernel.Running {
		t.Errorf("the other: got %+v, want it running", st)
	}
	if !strings.Contains(w.log.String(), "level=ERROR") {
		t.Error("nobody is alarmed")
	}
	rt.refusals.Store(3)
	w.master.reaches("a.t0", kernel.Killed)
}

// slowPull is a runtime that never finishes fetching one image.
type slowPull struct{ runtime.Runtime }

func (s slowPull) Pull(ctx context.Context, ref string, fresh bool) error {
	if ref == "slow" {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Runtime.Pull(ctx, ref, fresh)
}

func TestInstanceIsStoppedWhileItsImageIsFetched(t *testing.T) {
	w := newWorld(t)
	w.rt = slowPull{w.procs}
	w.start()
	slow := specOf("exec sleep 600")
	slow.Tasks[0].Image = "slow"
	w.master.launch(slow, kernel.Assignment{ID: "slow"})
	other := specOf("exec sleep 600")
	other.Tasks[0].Image = "example/image:1"
	w.master.launch(other, kernel.Assignment{ID: "other"})
	w.master.reaches("other.t0", kernel.Running)
	w.master.end("slow")
	if st := w.master.reaches("slow.t0", kernel.Killed); st.Message != "scaled down" {
		t.Errorf("got %q, want why it was stopped", st.Message)
	}
}

func TestSandboxesOfEndedTasksAreCollected(t *testing.T) {
	w := newWorld(t)
	w.cfg.SandboxCount = 2
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "lives"})
	w.master.reaches("lives.t0", kernel.Running)
	for i := range 5 {
		g := kernel.InstanceID(fmt.Sprintf("job%d", i))
		w.master.launch(specOf("exit 0"), kernel.Assignment{ID: g})
		w.master.reaches(kernel.TaskID(g+".t0"), kernel.Finished)
	}
	eventually(t, "three are left: the newest two and that of the task that runs", func() bool {
		all, _ := os.ReadDir(filepath.Join(w.cfg.State, "sandboxes"))
		var names []string
		for _, e := range all {
			names = append(names, e.Name())
		}
		return slices.Equal(names, []string{"job3.t0", "job4.t0", "lives.t0"})
	})
}

// TestAdoptedTasksKeepTheirConnections applies a master's table right after a restart: what runs stays ready in every
// table the network is given.
func TestAdoptedTasksKeepTheirConnections(t *testing.T) {
	w := newWorld(t)
	w.start()
	const n = 20
	var want []kernel.TaskID
	for i := range n {
		g := kernel.InstanceID(fmt.Sprintf("g%02d", i))
		w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: g})
		want = append(want, kernel.TaskID(g+".t0"))
	}
	for _, id := range want {
		w.master.reaches(id, kernel.Running)
	}
	var all []kernel.Endpoint
	for _, id := range want {
		all = append(all, endpointOf(id, w.master.last.Agent.ID))
	}
	w.master.tell(all...)
	w.becomesReady(want...)
	w.net.mu.Lock()
	w.net.judge = func(e []kernel.Endpoint) {
		for _, p := range e {
			if !p.Ready && p.Agent != "far" {
				t.Errorf("%s lost its connections", p.Task)
			}
		}
	}
	w.net.mu.Unlock()
	for i := range 3 {
		sessions := w.sessions()
		w.kill()
		w.start()
		w.master.connected(sessions)
		w.master.tell(kernel.Endpoint{Task: kernel.TaskID(fmt.Sprintf("z%d", i)), Agent: "far"})
		eventually(t, "the new table", func() bool { w.net.mu.Lock(); defer w.net.mu.Unlock(); return len(w.net.table) == n+i+1 })
	}
	w.net.mu.Lock()
	w.net.judge = nil
	w.net.mu.Unlock()
}
