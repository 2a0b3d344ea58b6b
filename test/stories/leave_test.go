package stories

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/test/testbed"
)

// departure is a datacenter of two machines, of which the second goes.
type departure struct {
	*testing.T
	h      *testbed.Datacenter
	c      *testbed.Client
	second *testbed.Member
	vip    string
}

const (
	movesApp = "/moves"
	lostName = "gone" // the cluster

	machinesMost = 16 // that the pool has addresses for
)

// The second machine alone has the programs of Kubernetes, in name only: enough that a cluster's control plane is
// placed there and keeps a reservation with a volume, the one kind that a machine can take with it. The pool has
// addresses for sixteen machines.
func TestAMachineThatIsRemovedLeavesItsPlaceToTheNext(t *testing.T) {
	ranges, err := testbed.Ranges()
	if err != nil {
		t.Fatal(err)
	}
	pool := strings.Replace(ranges[1], "/16", "/20", 1)
	h, err := workshop(t).Open("--hostname", "first", "--runtime", runtimeWith(t), "--pool", pool)
	if err != nil {
		t.Fatal(err)
	}
	h.CloseAfter(t)
	s := &departure{T: t, h: h, c: attend(t, h)}
	s.second = h.Join(t, "second", runtimeWith(t, "v1.37", "addons", "node"))
	was := s.member(s.second)
	s.work()

	s.refused(was, "keeps volumes of 1")
	s.leave(was)
	s.comesBackInVain(was)
	next := s.joinsAnew(was)
	s.refused(next, "keeps volumes of 0")
	s.forced(next)
}

// runtimeWith is a directory of the container runtime's programs beside which there are bundles of Kubernetes in name
// only.
func runtimeWith(t *testing.T, bundles ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, b := range bundles {
		bin := filepath.Join(dir, "bundle", "kubernetes", b, "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "VERSION"), []byte("v1.37.0\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	runtime := filepath.Join(dir, "bundle", "runtime")
	if err := os.MkdirAll(runtime, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(workshop(t).Runtime, filepath.Join(runtime, "bin")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(runtime, "bin")
}

func (s *departure) machines() (out []kernel.AgentView) {
	s.Helper()
	var all struct{ Machines []kernel.AgentView }
	if err := json.Unmarshal([]byte(s.h.Must(s.T, "machine", "list", "--json")), &all); err != nil {
		s.Fatal(err)
	}
	return all.Machines
}

// member waits until a machine has joined.
func (s *departure) member(m *testbed.Member) (out kernel.AgentView) {
	s.Helper()
	testbed.Eventually(s.T, 60*time.Second, time.Second/10, "joining of "+m.Hostname, func() error {
		name, err := m.Name()
		all := s.machines()
		i := slices.IndexFunc(all, func(p kernel.AgentView) bool { return string(p.ID) == name && p.Connected })
		if err != nil || i < 0 {
			return fmt.Errorf("%q, %v is not among %+v", name, err, all)
		}
		out = all[i]
		return nil
	})
	return out
}

// work puts an instance on each machine, and the control plane of a cluster on the second.
func (s *departure) work() {
	s.Helper()
	s.c.Deploy(s.T, s.h.ProbeApp(movesApp, 2).With(testbed.Definition{"backoffSeconds": 0}))
	if here, there := running(s.T, s.h, movesApp), s.there(); len(here) != 1 || len(there) != 1 {
		s.Fatalf("instances: %v on the first machine, %v on the second, want one on each", here, there)
	}
	s.vip = s.c.VIP(s.T, movesApp)
	s.answers(s.there()[0].Task)
	s.c.Ask(s.T, "POST", "/kubernetes/v1/clusters", testbed.Definition{"name": lostName, "version": "1.37"}, 201, nil)
	testbed.Until(s.T, 30*time.Second, "a volume on the second machine", func() error {
		if o := s.remove(s.member(s.second)); !strings.Contains(o.Err, "keeps volumes of 1") {
			return fmt.Errorf("removing it: %d, %s%s", o.Code, o.Out, o.Err)
		}
		return nil
	})
}

// there are the app's processes on the second machine.
func (s *departure) there() []testbed.Process {
	s.Helper()
	got, err := s.second.Processes(movesApp)
	if err != nil {
		s.Fatal(err)
	}
	return got
}

// answers waits until a task answers at the app's VIP, from whichever machine.
func (s *departure) answers(task string) {
	s.Helper()
	testbed.Until(s.T, 20*time.Second, "an answer of "+task+" at the VIP", func() error {
		if who, err := testbed.Who(s.vip); err != nil || who != task {
			return fmt.Errorf("answered by %q, %v", who, err)
		}
		return nil
	})
}

func (s *departure) remove(m kernel.AgentView, flags ...string) testbed.Output {
	return s.h.Run(append([]string{"machine", "remove", string(m.ID), "--yes"}, flags...)...)
}

// refused judges that a machine that is connected and has tasks is not removed without force, and what stands in the
// way.
func (s *departure) refused(m kernel.AgentView, keeps string) {
	s.Helper()
	if o := s.remove(m); o.Code == 0 || !strings.Contains(o.Err, "machine second is connected, runs ") ||
		!strings.Contains(o.Err, keeps) ||
		!strings.Contains(o.Err, "with force") {
		s.Errorf("remove: ended with %d, said %q, want a refusal: it is connected, %s", o.Code, o.Err+o.Out, keeps)
	}
	if !slices.ContainsFunc(s.machines(), func(p kernel.AgentView) bool { return p.ID == m.ID && p.Connected }) {
		s.Errorf("after a refusal the machines are %+v, want %s among them", s.machines(), m.ID)
	}
}

// leave has the machine fall silent and be removed, which takes no force once it is known to be away. What it ran is
// started on the first machine; what its volumes held is lost, and said so.
func (s *departure) leave(m kernel.AgentView) {
	s.Helper()
	if err := s.second.Stop(); err != nil {
		s.Fatal(err)
	}
	orphans := s.there()
	var said testbed.Output
	took := testbed.Eventually(s.T, 60*time.Second, time.Second/4, "removal of a machine that is away", func() error {
		if said = s.remove(m); said.Code != 0 {
			return fmt.Errorf("ended with %d: %s", said.Code, said.Err)
		}
		return nil
	})
	s.Logf("removed %v after its agent ended: %s", took, said.Out)
	for _, want := range []string{"(second) is removed", "lost: the volumes of " + lostName +
		".control-plane (kubernetes)"} {
		if !strings.Contains(said.Out, want) {
			s.Errorf("remove said %q, want %q in it", said.Out, want)
		}
	}
	s.alone(m, 2)
	if now := s.there(); !slices.Equal(now, orphans) {
		s.Errorf("tasks of a machine that nobody reaches: were %v, are %v", orphans, now)
	}
	if o := s.remove(m); o.Code == 0 || !strings.Contains(o.Err, "was removed already") {
		s.Errorf("removing it again: ended with %d, said %q, want that it was removed already", o.Code, o.Err+o.Out)
	}
	s.c.Ask(s.T, "DELETE", "/kubernetes/v1/clusters/"+lostName, nil, 202, nil)
	testbed.Until(s.T, 30*time.Second, "the end of a cluster whose control plane is lost", func() error {
		if a, err := s.c.Do("GET", "/kubernetes/v1/clusters/"+lostName, nil); err != nil || a.Status != 404 {
			return fmt.Errorf("%v, %v", a, err)
		}
		return nil
	})
}

// alone judges that the machine is no member and that the first one runs the whole app.
func (s *departure) alone(gone kernel.AgentView, instances int) {
	s.Helper()
	if slices.ContainsFunc(s.machines(), func(p kernel.AgentView) bool { return p.ID == gone.ID }) {
		s.Errorf("machines: %+v, want %s gone", s.machines(), gone.ID)
	}
	s.c.Settle(s.T, movesApp, 60*time.Second)
	if here := running(s.T, s.h, movesApp); len(here) != instances {
		s.Errorf("the first machine runs %v, want %d", here, instances)
	}
	for _, task := range s.c.App(s.T, movesApp).Tasks {
		if task.Host != "first" {
			s.Errorf("task %s is on %q, want first", task.ID, task.Host)
		}
	}
}

// told waits until the machine has ended all of the app and said why, which it does a number of times.
func (s *departure) told(m kernel.AgentView) {
	s.Helper()
	testbed.Until(s.T, 30*time.Second, "the end of what runs on a machine that was removed", func() error {
		text, err := s.second.Log()
		if left := s.there(); err != nil || len(left) > 0 || !strings.Contains(text,
			fmt.Sprintf("machine second (%s) was removed", m.ID)) {
			return fmt.Errorf("%v run, the agent's log: %v\n%s", left, err, text)
		}
		return nil
	})
	if slices.ContainsFunc(s.machines(), func(p kernel.AgentView) bool { return p.Hostname == "second" }) {
		s.Errorf("machines: %+v, want a machine that was removed to stay out", s.machines())
	}
}

// comesBackInVain starts the agent of the removed machine, whose tasks have run on: they end.
func (s *departure) comesBackInVain(m kernel.AgentView) {
	s.Helper()
	if err := s.second.Start(); err != nil {
		s.Fatal(err)
	}
	s.told(m)
	s.alone(m, 2)
}

// joinsAnew uses the machine again as docs/operations.md says, as often as it takes to be given the addresses that it
// gave back: they go round, so that those are the last of the pool.
func (s *departure) joinsAnew(was kernel.AgentView) kernel.AgentView {
	s.Helper()
	next := was
	for i := 0; i == 0 || next.Subnet != was.Subnet; i++ {
		if i > 0 {
			if o := s.remove(next); o.Code != 0 { // it runs nothing: no force
				s.Fatalf("remove: ended with %d, said %s%s", o.Code, o.Out, o.Err)
			}
		}
		if err := errors.Join(s.second.Down(), s.second.Rename(), s.second.Start()); err != nil {
			s.Fatal(err)
		}
		before := next
		if next = s.member(s.second); next.ID == before.ID || !next.Subnet.IsValid() || i == machinesMost {
			s.Fatalf("joined as %s with %s after %s with %s, the %d. time; want another name, and %s in the end",
				next.ID, next.Subnet, before.ID, before.Subnet, i+1, was.Subnet)
		}
	}
	s.c.Deploy(s.T, s.h.ProbeApp(movesApp, 3).With(testbed.Definition{"backoffSeconds": 0}))
	if there := s.there(); len(there) != 1 {
		s.Fatalf("%v run on the machine that joined, want one of three", there)
	}
	s.answers(s.there()[0].Task)
	return next
}

// forced removes a machine that is connected and runs something.
func (s *departure) forced(m kernel.AgentView) {
	s.Helper()
	o := s.remove(m, "--force")
	if o.Code != 0 || !strings.Contains(o.Out, "(second) is removed, 1 instances ended") || strings.Contains(o.Out,
		"lost:") {
		s.Errorf("remove --force: ended with %d, said %q, want one instance ended and nothing lost", o.Code, o.Out+o.Err)
	}
	s.told(m)
	s.alone(m, 3)
}
