package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// truth is a shell command that writes down each of its starts, and the file it writes to.
func truth(t *testing.T, rest string) (shell, file string) {
	file = filepath.Join(t.TempDir(), "truth")
	return fmt.Sprintf(`echo "$TASK $$" >> %s; %s`, file, rest), file
}

// starts counts the starts of each task by what the tasks themselves wrote.
func starts(file string) map[string]int {
	b, _ := os.ReadFile(file)
	out := map[string]int{}
	for line := range strings.Lines(string(b)) {
		task, _, _ := strings.Cut(line, " ")
		out[task]++
	}
	return out
}

func named(s kernel.Spec) kernel.Spec {
	for i := range s.Tasks {
		s.Tasks[i].Env = append(s.Tasks[i].Env, kernel.EnvVar{Name: "TASK", From: kernel.FieldTaskID})
	}
	return s
}

func TestKilledAgentComesBackWithItsTasks(t *testing.T) {
	w := newWorld(t)
	w.start()
	shell, file := truth(t, "exec sleep 600")
	w.master.launch(named(specOf(shell)), kernel.Assignment{ID: "web"})
	before := w.master.reaches("web.t0", kernel.Running)
	for i := range 3 {
		n := w.sessions()
		w.kill()
		w.start()
		w.master.connected(n)
		if after := w.master.last.Statuses; len(after) != 1 || after[0].Seq != before.Seq || after[0].PID != before.PID ||
			!after[0].Started.Equal(before.Started) {
			t.Errorf("restart %d: registered with %+v, want %+v", i, after, before)
		}
	}
	if got := starts(file); got["web.t0"] != 1 {
		t.Errorf("got starts %v, want one", got)
	}
	if got := len(w.master.history["web.t0"]); got != 2 {
		t.Errorf("got %d statuses, want 2: the restarts told nothing", got)
	}
}

func (w *world) sessions() int {
	w.master.mu.Lock()
	defer w.master.mu.Unlock()
	return w.master.sessions
}

func TestWhatEndedWhileTheAgentWasAwayIsTold(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, g := range []kernel.InstanceID{"ends", "vanishes", "stays"} {
		w.master.launch(specOf(`trap 'exit 5' TERM; while :; do sleep 0.01; done`), kernel.Assignment{ID: g})
	}
	pids := map[kernel.TaskID]int{}
	for _, id := range []kernel.TaskID{"ends.t0", "vanishes.t0", "stays.t0"} {
		pids[id] = w.master.reaches(id, kernel.Running).PID
	}
	w.kill()
	if err := syscall.Kill(pids["ends.t0"], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the exit", func() bool {
		return slices.ContainsFunc(w.containers(), func(f runtime.Found) bool { return f.Exit != nil && f.Exit.Code == 5 })
	})
	if err := w.procs.Remove(t.Context(), naming.Container("vanishes.t0", "boot-1")); err != nil {
		t.Fatal(err)
	}
	w.start()
	if st := w.master.reaches("ends.t0", kernel.Failed); st.Reason != kernel.ReasonExit || *st.Exit != 5 {
		t.Errorf("got %+v, want exit 5", st)
	}
	if st := w.master.reaches("vanishes.t0", kernel.Failed); st.Reason != kernel.ReasonVanished {
		t.Errorf("got %+v, want vanished", st)
	}
	if st := w.master.status("stays.t0"); st.State != kernel.Running || st.PID != pids["stays.t0"] {
		t.Errorf("got %+v, want it running", st)
	}
}

func TestMachineThatStartedAnewLosesItsTasks(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.launch(specOf("exec sleep 600"), kernel.Assignment{ID: "web"})
	w.master.reaches("web.t0", kernel.Running)
	w.kill()
	w.cfg.Boot = "boot-2"
	w.start()
	if st := w.master.reaches("web.t0", kernel.Lost); st.Reason != kernel.ReasonReboot {
		t.Errorf("got %+v, want reboot", st)
	}
	if c := w.containers(); len(c) != 0 {
		t.Errorf("got %+v, want nothing", c)
	}
}

func TestTerminalStatusIsRepeatedUntilAcknowledged(t *testing.T) {
	w := newWorld(t)
	w.master.mute = true
	w.start()
	w.master.launch(specOf("exit 0"), kernel.Assignment{ID: "job"})
	w.master.reaches("job.t0", kernel.Finished)
	w.master.drop()
	w.master.connected(1)
	w.kill()
	w.start()
	w.master.connected(2)
	eventually(t, "two repetitions", func() bool {
		w.master.mu.Lock()
		defer w.master.mu.Unlock()
		return w.master.repeats["job.t0"] >= 2
	})
	w.master.mu.Lock()
	w.master.mute = false
	w.master.mu.Unlock()
	w.master.drop()
	eventually(t, "the checkpoint is dropped", func() bool {
		left, _ := filepath.Glob(w.cfg.State + "/groups/*.ckpt")
		return len(left) == 0
	})
}

// checkpoint is the file of an instance, found by its content.
func checkpoint(t *testing.T, w *world, g kernel.InstanceID) string {
	t.Helper()
	all, _ := filepath.Glob(w.cfg.State + "/groups/*.ckpt")
	for _, name := range all {
		if strings.Contains(readFile(t, name), fmt.Sprintf(`"id":%q`, g)) {
			return name
		}
	}
	t.Fatalf("no checkpoint of %s among %v", g, all)
	return ""
}

func TestDamagedCheckpointsCostNothingButThemselves(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"torn":    func(b []byte) []byte { return b[:len(b)/2] },
		"flipped": func(b []byte) []byte { b[len(b)-9] ^= 4; return b },
		"empty":   func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			shell, file := truth(t, "exec sleep 600")
			for _, g := range []kernel.InstanceID{"a", "b", "orphan"} {
				w.master.launch(named(specOf(shell)), kernel.Assignment{ID: g})
			}
			pids := map[kernel.TaskID]int{}
			for _, id := range []kernel.TaskID{"a.t0", "b.t0", "orphan.t0"} {
				pids[id] = w.master.reaches(id, kernel.Running).PID
			}
			id := w.master.last.Agent.ID
			w.kill()
			own := filepath.Join(w.cfg.State, "agent.ckpt")
			broken := []string{checkpoint(t, w, "a"), checkpoint(t, w, "orphan"), own}
			for _, f := range broken {
				if err := os.WriteFile(f, damage([]byte(readFile(t, f))), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w.master.mu.Lock()
			delete(w.master.groups, "orphan") // nobody asks for it any more
			w.master.mu.Unlock()
			n := w.sessions()
			w.start()
			w.master.connected(n)
			if got := w.master.last.Agent.ID; got != id {
				t.Errorf("got agent %s, want %s still", got, id)
			}
			eventually(t, "a is told again, with a higher number", func() bool { return w.master.status("a.t0").Seq > 1<<30 })
			for _, task := range []kernel.TaskID{"a.t0", "b.t0"} {
				if st := w.master.status(task); st.State != kernel.Running || st.PID != pids[task] {
					t.Errorf("got %+v, want it running as %d", st, pids[task])
				}
			}
			eventually(t, "the orphan is removed", func() bool { return len(w.containers()) == 2 })
			for _, f := range broken {
				if _, err := os.Stat(f + ".corrupt"); err != nil || !strings.Contains(w.log.String(), f) {
					t.Errorf("%s: got %v, want it set aside and named in the log", f, err)
				}
			}
			if got := starts(file); got["a.t0"] != 1 || got["b.t0"] != 1 {
				t.Errorf("got starts %v, want one each", got)
			}
		})
	}
}

func TestTwoAgentsNeverShareADirectory(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.master.connected(0)
	second, err := agent.New(w.cfg, agent.Deps{Runtime: w.rt, Network: w.net, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = second.Run(t.Context())
	}
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("got %v, want unavailable and who holds it", err)
	}
}

// crasher is a runtime that ends the agent at a call chosen by a seed, before or after the call takes effect.
type crasher struct {
	runtime.Runtime
	w     *world
	left  atomic.Int64
	crash atomic.Pointer[func()]
	after atomic.Bool
}

func (c *crasher) step(f func() error) error {
	now := c.left.Add(-1) == 0
	if now && !c.after.Load() {
		(*c.crash.Load())()
		return context.Canceled
	}
	err := f()
	if now {
		(*c.crash.Load())()
		return context.Canceled
	}
	return err
}

func (c *crasher) Create(ctx context.Context, k runtime.Container) error {
	if !c.written(k.ID) {
		c.w.t.Errorf("container %s is made before its intent is on disk", k.ID)
	}
	return c.step(func() error { return c.Runtime.Create(ctx, k) })
}

// written reports whether a checkpoint names a container, or the end of one.
func (c *crasher) written(container string, words ...string) bool {
	all, _ := filepath.Glob(c.w.cfg.State + "/groups/*.ckpt")
	for _, name := range all {
		b, _ := os.ReadFile(name)
		found := strings.Contains(string(b), container)
		for _, w := range words {
			found = found && strings.Contains(string(b), w)
		}
		if found {
			return true
		}
	}
	return false
}

func (c *crasher) Start(ctx context.Context, id string) (p runtime.Process, err error) {
	serr := c.step(func() error { p, err = c.Runtime.Start(ctx, id); return err })
	return p, serr
}

func (c *crasher) Signal(ctx context.Context, id string, sig int) error {
	return c.step(func() error { return c.Runtime.Signal(ctx, id, sig) })
}

func (c *crasher) Remove(ctx context.Context, id string) error {
	if f, err := c.w.procs.Containers(ctx); err == nil {
		for _, f := range f {
			if f.ID == id && f.Process.PID != 0 && !c.written(id, "TASK_KILLED") {
				c.w.t.Errorf("container %s is removed before its end is on disk", id)
			}
		}
	}
	return c.step(func() error { return c.Runtime.Remove(ctx, id) })
}

// netCrasher does the same around calls to the network.
type netCrasher struct {
	*netTwin
	c *crasher
}

func (n netCrasher) OpenPorts(ctx context.Context, a kernel.Attachment) error {
	return n.c.step(func() error { return n.netTwin.OpenPorts(ctx, a) })
}

func (n netCrasher) Detach(ctx context.Context, g kernel.InstanceID) error {
	return n.c.step(func() error { return n.netTwin.Detach(ctx, g) })
}

// TestAgentKilledAtAnyCallGoesOn lets instances begin and end while the agent is killed again and again around its
// calls to the runtime and the network. The master judges numbers and terminal states; the tasks write down their
// starts themselves.
func TestAgentKilledAtAnyCallGoesOn(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { killRandomly(t, seed) })
	}
}

func killRandomly(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := newWorld(t)
	c := &crasher{Runtime: w.procs, w: w}
	w.rt, w.network = c, netCrasher{w.net, c}
	shell, file := truth(t, "exec sleep 600")
	restart := make(chan struct{}, 1)
	arm := func() {
		crash := func() {
			select {
			case restart <- struct{}{}:
			default:
			}
			w.crashNow()
		}
		c.crash.Store(&crash)
		c.after.Store(rng.IntN(2) == 0)
		c.left.Store(1 + rng.Int64N(9))
	}
	arm()
	w.start()
	const groups = 8
	for i := range groups {
		w.master.launch(named(specOf(shell)), kernel.Assignment{ID: kernel.InstanceID(fmt.Sprintf("g%d", i))})
	}
	id := func(i int) kernel.TaskID { return kernel.TaskID(fmt.Sprintf("g%d.t0", i)) }
	crashes, ended := 0, 0
	for began := time.Now(); ended < groups; {
		select {
		case <-restart:
			w.kill()
			if crashes++; crashes < 12 {
				arm()
			}
			w.start()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(began) > limit {
			t.Fatalf("%d of %d groups ended", ended, groups)
		}
		ended = 0
		for i := range groups {
			switch st := w.master.status(id(i)); {
			case st.State == kernel.Running:
				w.master.end(kernel.InstanceID(fmt.Sprintf("g%d", i)))
			case st.State.Terminal():
				ended++
			}
		}
	}
	if crashes == 0 {
		t.Error("the agent was never killed")
	}
	c.left.Store(0)
	eventually(t, "nothing is left", func() bool {
		attached, _ := w.net.Attached(t.Context())
		return len(w.containers()) == 0 && len(attached) == 0
	})
	for task, n := range starts(file) {
		if n != 1 {
			t.Errorf("%s was started %d times", task, n)
		}
	}
	t.Logf("%d crashes", crashes)
}

// crashNow ends the agent's context and does not wait, from inside of one of its calls.
func (w *world) crashNow() { (*w.cancel.Load())() }
