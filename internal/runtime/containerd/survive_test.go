package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/runtime"
)

// daemonPID is the pid of the place's containerd.
func (p *place) daemonPID() int {
	p.t.Helper()
	pid, err := p.daemon.PID()
	if err != nil || pid == 0 {
		p.t.Fatalf("no containerd: %v", err)
	}
	return pid
}

// running reports whether a process has these bytes in its command line, whose words end with zero bytes.
func running(t testing.TB, words string) bool {
	t.Helper()
	pids, err := machine.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(pids, func(pid int) bool {
		line, err := machine.CommandLine(pid)
		return err == nil && bytes.Contains(line, []byte(words))
	})
}

// shimPID is the pid of a container's shim: the parent of its first process.
func (p *place) shimPID(pid int) int {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		p.t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[1])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// find is what is known of a container.
func (p *place) find(id string) (runtime.Found, bool) {
	p.t.Helper()
	all, err := p.Containers(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(f runtime.Found) bool { return f.ID == id })
	if i < 0 {
		return runtime.Found{}, false
	}
	return all[i], true
}

// goesOn checks that a ticking container still writes.
func goesOn(t *testing.T, c runtime.Container) {
	t.Helper()
	before := len(contents(t, c.Stdout))
	eventually(t, "output grows", func() bool { return len(contents(t, c.Stdout)) > before })
}

// sameAll checks that every line of a ticking container is of one process, without a gap.
func sameAll(t *testing.T, c runtime.Container) {
	t.Helper()
	out := contents(t, c.Stdout)
	for i, line := range strings.Split(strings.TrimSpace(out[:strings.LastIndexByte(out, '\n')]), "\n") {
		if want := fmt.Sprint("1 ", i); line != want {
			t.Fatalf("line %d: got %q, want %q", i, line, want)
		}
	}
}

func TestContainersOutliveContainerd(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())
	c, dies := p.container("tick"), p.container("polite")
	proc, dying := p.run(c), p.run(dies)
	for round := range 3 {
		old := p.daemonPID()
		if err := unix.Kill(old, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if round == 1 { // this one ends while containerd is dead or has just come back
			if err := unix.Kill(dying.PID, unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if e := p.exit(exits, dies.ID); e.Code != 7 {
				t.Errorf("ended without containerd: got %+v, want code 7", e)
			}
		}
		goesOn(t, c)
		f, ok := p.find(c.ID) // waits for the new containerd
		if !ok || !f.Running || f.Process != proc {
			t.Fatalf("round %d: got %+v, want it running as %+v", round, f, proc)
		}
		if p.daemonPID() == old {
			t.Fatal("containerd was not killed")
		}
	}
	code, err := p.Exec(t.Context(), c.ID, runtime.Exec{Argv: []string{"/probe", "exit", "4"}})
	if err != nil || code != 4 {
		t.Errorf("exec afterwards: got %d, %v, want 4", code, err)
	}
	if err := p.Signal(t.Context(), c.ID, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if e := p.exit(exits, c.ID); e.Code != 137 {
		t.Errorf("got %+v, want code 137", e)
	}
	sameAll(t, c)
}

func TestContainersAndTheirEndsOutliveTheAgent(t *testing.T) {
	p := newPlace(t)
	goes, ends, eats := p.container("tick"), p.container("polite"), p.container("eat")
	eats.MemLimit = 512 << 20
	proc, ending := p.run(goes), p.run(ends)
	daemon := p.daemonPID()
	if err := p.Create(t.Context(), eats); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Start(t.Context(), eats.ID); err != nil {
		t.Fatal(err)
	}
	p.down()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "polite listens", func() bool { return contents(t, ends.Stdout) == "ready\n" })
	if err := unix.Kill(ending.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	goesOn(t, goes)

	p.up()
	if got := p.daemonPID(); got != daemon {
		t.Errorf("containerd: got pid %d, want %d adopted", got, daemon)
	}
	f, ok := p.find(goes.ID)
	if !ok || !f.Running || f.Process != proc || f.Labels["task"] != "app" {
		t.Errorf("got %+v, want it running as %+v with its labels", f, proc)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exits := p.Exits(ctx)
	got := map[string]runtime.Exit{}
	for len(got) < 2 {
		select {
		case e := <-exits:
			got[e.ID] = e
		case <-time.After(patience):
			t.Fatalf("exits: got %v, want two", got)
		}
	}
	if e := got[ends.ID]; e.Code != 7 || e.OOM {
		t.Errorf("polite: got %+v, want code 7", e)
	}
	if e := got[eats.ID]; e.Code != 137 || !e.OOM {
		t.Errorf("eater: got %+v, want code 137 by OOM", e)
	}
	sameAll(t, goes)
}

func TestKilledShimEndsItsContainerOnly(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())
	goes, lost := p.container("tick"), p.container("tick")
	proc, gone := p.run(goes), p.run(lost)
	if err := unix.Kill(p.shimPID(gone.PID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := p.exit(exits, lost.ID); e.Code != 137 {
		t.Errorf("got %+v, want code 137", e)
	}
	eventually(t, "its process is gone", func() bool {
		_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(gone.PID)))
		return os.IsNotExist(err)
	})
	if f, ok := p.find(goes.ID); !ok || f.Process != proc {
		t.Errorf("the other: got %+v, want %+v", f, proc)
	}
	if err := p.Remove(t.Context(), lost.ID); err != nil {
		t.Errorf("Remove: %v", err)
	}

	t.Run("while containerd is dead", func(t *testing.T) {
		daemon := p.daemonPID()
		shim := p.shimPID(proc.PID)
		if err := unix.Kill(daemon, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(shim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := p.exit(exits, goes.ID); e.Code != 137 {
			t.Errorf("got %+v, want code 137", e)
		}
		eventually(t, "its process is gone", func() bool {
			_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(proc.PID)))
			return os.IsNotExist(err)
		})
	})
}

func TestHungShimIsStuckAlone(t *testing.T) {
	p := newPlace(t)
	p.Runtime.limit = 3 * time.Second
	goes, hangs := p.container("tick"), p.container("tick")
	p.run(goes)
	shim := p.shimPID(p.run(hangs).PID)
	if err := unix.Kill(shim, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := func() {
		if err := unix.Kill(shim, unix.SIGCONT); err != nil && err != unix.ESRCH {
			t.Error(err)
		}
	}
	defer resume()
	if err := p.Remove(t.Context(), hangs.ID); !errors.Is(err, ErrStuck) {
		t.Errorf("Remove: got %v, want %v", err, ErrStuck)
	}
	if f, ok := p.find(goes.ID); !ok || !f.Running {
		t.Errorf("the other: got %+v, want it running", f)
	}
	if err := p.Remove(t.Context(), goes.ID); err != nil {
		t.Errorf("Remove of the other: %v", err)
	}
	resume()
	if err := p.Remove(t.Context(), hangs.ID); err != nil {
		t.Errorf("Remove once it answers: %v", err)
	}
}

func TestContainerdIsReplacedWhenItsConfigurationChanged(t *testing.T) {
	p := newPlace(t)
	c := p.container("tick")
	proc := p.run(c)
	daemon := p.daemonPID()
	p.down()
	p.Close()
	if err := os.WriteFile(p.cfg.configFile(), []byte("# an older one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.up()
	if p.daemonPID() == daemon {
		t.Error("containerd was adopted, want it replaced")
	}
	if f, ok := p.find(c.ID); !ok || f.Process != proc {
		t.Errorf("got %+v, want it running as %+v", f, proc)
	}
}

func TestHalfMadeContainerCanBeRemovedAndMadeAgain(t *testing.T) {
	p := newPlace(t)
	c := p.container("tick")
	if _, err := p.client.SnapshotService("overlayfs").Prepare(t.Context(), containerID(c.ID), ""); err != nil {
		t.Fatal(err)
	}
	if err := p.Create(t.Context(), c); err == nil {
		t.Fatal("created over a snapshot that is there already")
	}
	if err := p.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	p.run(c)
}

func TestContainerdKilledWhileContainersAreMadeLeavesNothing(t *testing.T) {
	p := newPlace(t)
	for round := range 8 {
		var making sync.WaitGroup
		var killed atomic.Bool
		var made []runtime.Container
		for range 3 {
			c := p.container("tick")
			made = append(made, c)
			making.Go(func() { // may fail or not once containerd is killed: afterwards it can be removed
				if err := p.Create(t.Context(), c); err != nil && !killed.Load() {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		rec := containerID(made[round%3].ID)
		eventually(t, "a shim is started", func() bool { return running(t, "\x00-id\x00"+rec+"\x00") })
		for range round * 4000 { // at another moment each time
			goruntime.Gosched()
		}
		killed.Store(true)
		if err := unix.Kill(p.daemonPID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		making.Wait()
		for _, c := range made {
			if err := p.Remove(t.Context(), c.ID); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
	eventually(t, "no shim is left", func() bool { return !running(t, "\x00"+p.cfg.namespace()+"\x00") })
	if dirs, err := filepath.Glob("/sys/fs/cgroup/*" + p.cfg.cgroup() + "/*/cgroup.procs"); err != nil || len(dirs) > 0 {
		t.Errorf("cgroups stay: %v, %v", dirs, err)
	}
}
