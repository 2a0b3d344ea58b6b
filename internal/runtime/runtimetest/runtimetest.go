package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/runtime"
)

// limit bounds every wait: what takes longer is said not to happen.
const limit = 20 * time.Second

// Options has what the suite needs of an implementation.
type Options struct {
	// Open opens a runtime over the test's state. A second call in one test stands for an agent that started anew.
	Open func(t *testing.T) runtime.Runtime

	// Container completes a container whose ID, Shell, Labels, Env, Stdout and Stderr are set, so that it can run a shell.
	Container func(t *testing.T, c runtime.Container) runtime.Container

	Missing string // reference of an image that nobody has
	OOM     bool   // memory limits work and OOM is told
	Sizes   bool   // volumes are filesystems of a size
}

// Run runs the suite.
func Run(t *testing.T, o Options) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *suite)
	}{
		{"MissingImageIsNotFound", missingImage},
		{"ContainerRunsAndItsExitIsTold", runs},
		{"SignalledExitIs128AndTheSignal", signalled},
		{"ExitIsToldToWhoListensLater", lateListener},
		{"CreatedContainerHasNotStarted", created},
		{"TwiceTheSameIDIsAlreadyThere", twice},
		{"RemovingIsRepeatableAndKills", removing},
		{"RuntimeOpenedAnewFindsAll", reopened},
		{"ExecRunsBesideAndTellsItsCode", execs},
		{"ExecEndsWithItsContext", execCancelled},
		{"OutputIsAppended", appended},
		{"ManyStartAtOnce", many},
		{"StatsOfWhatRuns", stats},
		{"MemoryOverItsLimitIsOOM", oom},
		{"LimitsChangeWhileItRuns", updates},
		{"VolumeKeepsItsContentAndGrows", volumes},
		{"DamagedVolumeSaysSo", damaged},
		{"MemoryIsGoneWhenUnmounted", memory},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{t: t, o: o, dir: t.TempDir()}
			s.rt = o.Open(t)
			t.Cleanup(s.clean)
			c.test(t, s)
		})
	}
}

func missingImage(t *testing.T, s *suite) {
	if err := s.rt.Pull(s.ctx(), s.o.Missing, false); !errdefs.IsNotFound(err) {
		t.Errorf("pull %s: got %v, want not found", s.o.Missing, err)
	}
}

func runs(t *testing.T, s *suite) {
	exits := s.rt.Exits(s.ctx())
	s.make("one", `echo "out $COLOUR"; echo err >&2; exit 7`)
	s.start("one")
	if e := s.exit(exits, "one"); e.Code != 7 || e.OOM || time.Since(e.Time).Abs() > time.Minute {
		t.Errorf("got exit %+v, want code 7, no OOM, now", e)
	}
	s.says(s.file("one", "stdout"), "out blue and green\n")
	s.says(s.file("one", "stderr"), "err\n")
	if err := s.rt.Signal(s.ctx(), "one", int(syscall.SIGTERM)); err != nil {
		t.Errorf("signal after the end: got %v, want nil", err)
	}
}

func signalled(t *testing.T, s *suite) {
	exits := s.rt.Exits(s.ctx())
	s.make("killed", `echo up; exec sleep 600`)
	s.make("heeds", `trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done`)
	for _, id := range []string{"killed", "heeds"} {
		s.start(id)
		s.says(s.file(id, "stdout"), "up")
	}
	for id, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "heeds": syscall.SIGTERM} {
		if err := s.rt.Signal(s.ctx(), id, int(sig)); err != nil {
			t.Fatalf("signal %s: %v", id, err)
		}
	}
	got := map[string]int{}
	for len(got) < 2 {
		select {
		case e := <-exits:
			got[e.ID] = e.Code
		case <-s.ctx().Done():
			t.Fatal("no exits")
		}
	}
	if want := map[string]int{"killed": 137, "heeds": 3}; !maps.Equal(got, want) {
		t.Errorf("got exit codes %v, want %v", got, want)
	}
}

func lateListener(t *testing.T, s *suite) {
	s.make("early", `exit 5`)
	s.start("early")
	for began := time.Now(); ; {
		if f, ok := s.find("early"); ok && f.Exit != nil {
			break
		}
		if time.Since(began) > limit {
			t.Fatal("the exit is not found")
		}
		time.Sleep(5 * time.Millisecond) // between looks
	}
	if e := s.exit(s.rt.Exits(s.ctx()), "early"); e.Code != 5 {
		t.Errorf("got exit %+v, want code 5", e)
	}
}

func created(t *testing.T, s *suite) {
	s.make("still", `echo ran`)
	f, ok := s.find("still")
	if !ok || f.Running || f.Exit != nil || f.Process.PID != 0 || f.Labels[runtime.LabelTask] != "task of still" {
		t.Errorf("got %+v, %t, want a container with its label and no sign of a process", f, ok)
	}
}

func twice(t *testing.T, s *suite) {
	s.make("same", `exec sleep 600`)
	p := s.start("same")
	err := s.rt.Create(s.ctx(), s.o.Container(t, runtime.Container{ID: "same", Shell: "true"}))
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v, want already exists", err)
	}
	if f, _ := s.find("same"); !f.Running || f.Process.PID != p.PID {
		t.Errorf("the first: got %+v, want it running as pid %d", f, p.PID)
	}
}

func removing(t *testing.T, s *suite) {
	s.make("dies", `sleep 601 & echo up; sleep 600`)
	p := s.start("dies")
	s.says(s.file("dies", "stdout"), "up")
	for range 2 {
		if err := s.rt.Remove(s.ctx(), "dies"); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(p.PID, 0); !errors.Is(err, syscall.ESRCH) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if !strings.Contains(string(b), ") Z ") {
			t.Errorf("process %d after its container was removed: got %v %s, want it gone", p.PID, err, b)
		}
	}
	if _, ok := s.find("dies"); ok {
		t.Error("a removed container is listed")
	}
	if err := s.rt.Remove(s.ctx(), "never-there"); err != nil {
		t.Errorf("remove of what is not there: %v", err)
	}
}

func reopened(t *testing.T, s *suite) {
	s.make("runs", `echo up; exec sleep 600`)
	s.make("ended", `exit 4`)
	s.make("created", `true`)
	p := s.start("runs")
	s.start("ended")
	s.says(s.file("runs", "stdout"), "up")
	before, _ := s.find("runs")

	s.rt = s.o.Open(t)
	exits := s.rt.Exits(s.ctx())
	if e := s.exit(exits, "ended"); e.Code != 4 {
		t.Errorf("got exit %+v, want code 4", e)
	}
	f, _ := s.find("runs")
	same := f.Process.PID == p.PID && f.Process.Started.Equal(before.Process.Started)
	if !f.Running || !same || f.Labels[runtime.LabelTask] != "task of runs" {
		t.Errorf("got %+v, want what was there before: %+v of pid %d", f, before, p.PID)
	}
	if f, ok := s.find("created"); !ok || f.Running || f.Exit != nil {
		t.Errorf("created: got %+v, %t, want it as it was", f, ok)
	}
	code, err := s.rt.Exec(s.ctx(), "runs", runtime.Exec{Argv: []string{"/bin/sh", "-c", "exit 9"}})
	if code != 9 || err != nil {
		t.Errorf("exec: got %d, %v, want 9", code, err)
	}
	if err := s.rt.Signal(s.ctx(), "runs", int(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if e := s.exit(exits, "runs"); e.Code != 137 {
		t.Errorf("got exit %+v, want code 137", e)
	}
}

func execs(t *testing.T, s *suite) {
	s.make("host", `exec sleep 600`)
	s.start("host")
	var out, errs bytes.Buffer
	code, err := s.rt.Exec(s.ctx(), "host", runtime.Exec{
		Argv: []string{"/bin/sh", "-c", `read x; echo "$x $COLOUR $MORE"; echo bad >&2; exit 6`},
		Env:  []string{"MORE=more"}, Stdin: strings.NewReader("said\n"), Stdout: &out, Stderr: &errs})
	if code != 6 || err != nil || out.String() != "said blue and green more\n" || errs.String() != "bad\n" {
		t.Errorf("got code %d, %v, out %q, err %q, want 6, what was said, and bad", code, err, out.String(), errs.String())
	}
	out.Reset()
	code, err = s.rt.Exec(s.ctx(), "host", runtime.Exec{
		Argv: []string{"/bin/sh", "-c", `test -t 0 && test -t 1 && echo terminal`}, TTY: true, Stdout: &out})
	if code != 0 || err != nil || !strings.Contains(out.String(), "terminal") {
		t.Errorf("with a terminal: got code %d, %v, out %q, want terminal", code, err, out.String())
	}
	if _, err := s.rt.Exec(s.ctx(), "nobody", runtime.Exec{Argv: []string{"true"}}); !errdefs.IsNotFound(err) {
		t.Errorf("exec where nothing is: got %v, want not found", err)
	}
	if f, _ := s.find("host"); !f.Running {
		t.Errorf("after exec: got %+v, want it running", f)
	}
}

func execCancelled(t *testing.T, s *suite) {
	s.make("host", `exec sleep 600`)
	s.start("host")
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	out := &trigger{do: cancel}
	_, err := s.rt.Exec(ctx, "host", runtime.Exec{Argv: []string{"/bin/sh", "-c", `echo $$; exec sleep 600`}, Stdout: out})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if f, _ := s.find("host"); !f.Running {
		t.Errorf("after exec: got %+v, want it running", f)
	}
}

// trigger does something on the first write.
type trigger struct {
	once sync.Once
	do   func()
}

func (t *trigger) Write(p []byte) (int, error) { t.once.Do(t.do); return len(p), nil }

func appended(t *testing.T, s *suite) {
	if err := os.WriteFile(s.file("logs", "stdout"), []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.make("logs", `trap 'echo second' TERM; echo first; while :; do sleep 0.01; done`)
	s.start("logs")
	s.says(s.file("logs", "stdout"), "before\nfirst\n")
	if err := os.Truncate(s.file("logs", "stdout"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.rt.Signal(s.ctx(), "logs", int(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	s.says(s.file("logs", "stdout"), "second\n")
	if b, err := os.ReadFile(s.file("logs", "stdout")); err != nil || string(b) != "second\n" {
		t.Errorf("after a truncation: got %q, %v, want what came later and no hole", b, err)
	}
}

func many(t *testing.T, s *suite) {
	exits := s.rt.Exits(s.ctx())
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		id := fmt.Sprintf("many-%d", i)
		c := s.o.Container(t, runtime.Container{ID: id, Shell: fmt.Sprintf("exit %d", i), MilliCPU: 100,
			Stdout: s.file(id, "stdout"), Stderr: s.file(id, "stderr")})
		s.ids = append(s.ids, id)
		wg.Go(func() {
			if err := s.rt.Create(s.ctx(), c); err != nil {
				t.Errorf("create %s: %v", id, err)
			} else if _, err := s.rt.Start(s.ctx(), id); err != nil {
				t.Errorf("start %s: %v", id, err)
			}
		})
	}
	got := map[string]int{}
	deadline := time.After(limit)
	for len(got) < n {
		select {
		case e := <-exits:
			got[e.ID] = e.Code
		case <-deadline:
			t.Fatalf("got %d exits, want %d", len(got), n)
		}
	}
	wg.Wait()
	for i := range n {
		if id := fmt.Sprintf("many-%d", i); got[id] != i {
			t.Errorf("%s: got exit %d, want %d", id, got[id], i)
		}
	}
}

func stats(t *testing.T, s *suite) {
	s.make("busy", `echo up; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exec sleep 600`)
	s.start("busy")
	s.says(s.file("busy", "stdout"), "done")
	st, err := s.rt.Stats(s.ctx(), "busy")
	if err != nil || st.CPU <= 0 || st.Mem <= 0 || st.PIDs <= 0 {
		t.Errorf("got %+v, %v, want memory, time and processes", st, err)
	}
}

func oom(t *testing.T, s *suite) {
	if !s.o.OOM {
		t.Skip("this runtime has no memory limits")
	}
	exits := s.rt.Exits(s.ctx())
	s.make("hungry", `x=x; while :; do x=$x$x; done`, func(c *runtime.Container) { c.MemLimit = 16 << 20 })
	s.start("hungry")
	if e := s.exit(exits, "hungry"); !e.OOM {
		t.Errorf("got exit %+v, want OOM", e)
	}
}
