package stories

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/test/testbed"
)

// tenure is an app whose tasks are to stay, whatever becomes of the datacenter's processes.
type tenure struct {
	*testing.T
	h   *testbed.Datacenter
	c   *testbed.Client
	id  string
	vip string
	was []testbed.Process
}

func (s *tenure) up(program string) string {
	s.Helper()
	out, err := s.h.UpAs(program)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// stayed judges that the tasks are the processes they were, and that the datacenter knows them as such.
func (s *tenure) stayed(when string) {
	s.Helper()
	s.c.Settle(s.T, s.id, 30*time.Second)
	if now := running(s.T, s.h, s.id); !slices.Equal(now, s.was) {
		s.Errorf("%s: tasks were %v, are %v", when, s.was, now)
	}
	adopted(s.T, s.h, s.c, s.id)
}

// answers judges that the VIP leads to the app.
func (s *tenure) answers(when string) {
	s.Helper()
	if who, err := testbed.Who(s.vip); err != nil || !strings.HasPrefix(who, testbed.Prefix(s.id)) {
		s.Errorf("%s: the VIP answers %q, %v", when, who, err)
	}
}

func TestTasksOutliveEverythingThatHappensToTheDatacentersProcesses(t *testing.T) {
	h, c := own(t)
	s := &tenure{T: t, h: h, c: c, id: "/stays"}
	c.Deploy(t, h.ProbeApp(s.id, 2))
	if err := h.Witness(); err != nil {
		t.Fatal(err)
	}
	s.was, s.vip = running(t, h, s.id), c.VIP(t, s.id)
	caller := testbed.NewCaller(s.vip, 10*time.Millisecond, nil)
	s.upAgain()
	newer, err := h.Build("marina-2", "testbed-2")
	if err != nil {
		t.Fatal(err)
	}
	s.upWithNewBuild(newer)
	report(t, "while daemon and agent were replaced", caller.Stop())
	s.upInPlace(newer)
	s.downAfterKill()
	s.upAfterDown()
}

func (s *tenure) upAgain() {
	daemon, _ := s.h.PID("daemon")
	if out := s.up(s.h.Marina); !strings.Contains(out, "runs already") {
		s.Errorf("up once more: got %q, want it to say that all runs", out)
	}
	if now, _ := s.h.PID("daemon"); now != daemon {
		s.Errorf("up once more replaced the daemon: %d, then %d", daemon, now)
	}
	s.stayed("after up once more")
}

func (s *tenure) upWithNewBuild(newer string) {
	s.h.Become(s.T, newer)
	s.stayed("after up with a new build")
	s.c.Deploy(s.T, s.h.ProbeApp("/newer", 1)) // it works
	s.c.Remove(s.T, "/newer")
}

// upInPlace puts a build in the place of the file that runs, as git pull and make do, and has the old daemon start an
// agent.
func (s *tenure) upInPlace(newer string) {
	file := filepath.Join(s.TempDir(), "marina")
	copyFile(s.T, s.h.Marina, file)
	s.up(file)
	copyFile(s.T, newer, file+".new")
	if err := os.Rename(file+".new", file); err != nil {
		s.Fatal(err)
	}
	agent, err := s.h.PID("agent")
	if err != nil {
		s.Fatal(err)
	}
	kill(s.T, s.h, "agent")
	testbed.Until(s.T, 20*time.Second, "another agent", func() error {
		if pid, err := s.h.PID("agent"); err != nil || pid == agent {
			return fmt.Errorf("agent %d, %v", pid, err)
		}
		return nil
	})
	s.up(file)
	s.stayed("after the program's file was replaced")
}

func (s *tenure) downAfterKill() {
	kill(s.T, s.h, "daemon")
	s.answers("without a daemon")
	if now := running(s.T, s.h, s.id); !slices.Equal(now, s.was) {
		s.Errorf("without a daemon: tasks were %v, are %v", s.was, now)
	}
	for range 2 { // the second has nothing to do
		s.h.Must(s.T, "down")
		trace, err := s.h.Trace(nil)
		if err != nil {
			s.Fatal(err)
		}
		for _, kind := range []string{"process", "namespace", "link", "table", "route"} {
			if len(trace.Kinds[kind]) > 0 {
				s.Errorf("after down there still is %s %v", kind, trace.Kinds[kind])
			}
		}
	}
}

func (s *tenure) upAfterDown() {
	s.up(s.h.Marina)
	s.c.Settle(s.T, s.id, 60*time.Second)
	now := running(s.T, s.h, s.id)
	if len(now) != 2 || slices.ContainsFunc(now, func(p testbed.Process) bool { return slices.Contains(s.was, p) }) {
		s.Errorf("after down and up: %v run, want 2 new ones", now)
	}
	if got := s.c.VIP(s.T, s.id); got != s.vip {
		s.Errorf("after down and up the VIP is %s, was %s", got, s.vip)
	}
	s.answers("after down and up")
	adopted(s.T, s.h, s.c, s.id)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestTwoDatacentersStandSideBySide(t *testing.T) {
	w := workshop(t)
	var houses []*testbed.Datacenter
	var clients []*testbed.Client
	for range 2 {
		h, err := w.New() // with the address ranges that they choose themselves
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		if _, err := h.Up(); err != nil {
			t.Fatal(err)
		}
		if err := h.Load(w.Probe); err != nil {
			t.Fatal(err)
		}
		houses, clients = append(houses, h), append(clients, attend(t, h))
	}
	const id = "/twin"
	for i, c := range clients {
		c.Deploy(t, houses[i].ProbeApp(id, 1))
		if err := houses[i].Witness(); err != nil {
			t.Fatal(err)
		}
	}
	var callers []*testbed.Caller
	for i, c := range clients {
		vip := c.VIP(t, id)
		who, err := testbed.Who(vip)
		if mine := running(t, houses[i], id); err != nil || len(mine) != 1 || who != mine[0].Task {
			t.Errorf("datacenter %d: %s answers %q, %v, want %v", i, vip, who, err, mine)
		}
		callers = append(callers, testbed.NewCaller(vip, 10*time.Millisecond, nil))
	}
	stays := running(t, houses[1], id)
	callers[0].Stop()
	if a, err := clients[1].Do("GET", "/v2/apps", nil); err != nil || a.Status != 200 {
		t.Fatalf("the second datacenter: %v, %v", a, err)
	}
	other := *clients[1]
	other.Auth = clients[0].Auth
	if a, err := other.Do("GET", "/v2/apps", nil); err != nil || a.Status != 401 {
		t.Errorf("a token of one datacenter at the other: got %v, %v, want 401", a, err)
	}
	if err := houses[0].Close(); err != nil {
		t.Errorf("taking the first away: %v", err)
	}
	if err := unix.Access(houses[0].State, unix.F_OK); err == nil {
		t.Errorf("%s is still there", houses[0].State)
	}
	testbed.Always(t, 2*time.Second, "the second datacenter after the first one's end", func() error { return clients[1].Settled(id) })
	if now := running(t, houses[1], id); !slices.Equal(now, stays) {
		t.Errorf("the second's tasks: were %v, are %v", stays, now)
	}
	report(t, "while the other datacenter was taken away", callers[1].Stop())
}
