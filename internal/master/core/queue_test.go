package core

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
)

// poolOf is a state with one machine of so many cores.
func poolOf(t *testing.T, cores int64) (*State, func(...event.Event) Effects) {
	s, now := NewState(Config{}), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	step := func(events ...event.Event) Effects {
		now = now.Add(10 * time.Millisecond)
		return s.Step(now, events...)
	}
	step(event.AgentUp{Session: 1, Seq: 1, Registration: kernel.Registration{Incarnation: "1",
		Agent: kernel.Agent{ID: "a", Hostname: "a", Address: netip.MustParseAddr("192.0.2.1"),
			Total: kernel.Resources{MilliCPU: cores * 1000, Mem: 64 * kernel.GiB,
				Disk: 64 * kernel.GiB}, Ports: kernel.PortRange{First: 31000, Last: 31009}}}})
	return s, step
}

// asks is a launch of n instances of an owner by one core each, changed as change says.
func asks(t *testing.T, owner, role string, n int, change func(*kernel.Spec)) event.Launch {
	t.Helper()
	sp := kernel.Spec{Framework: "f", Owner: owner, Version: "1", Role: role,
		Network: kernel.Network{Mode: kernel.NetworkHost},
		Tasks:   []kernel.TaskSpec{{Name: "t", Suffix: ".t", Shell: "true", Guarantee: kernel.Resources{MilliCPU: 1000}}}}
	if change != nil {
		change(&sp)
	}
	sealed, err := sp.Seal()
	if err != nil {
		t.Fatal(err)
	}
	serial++
	l := event.Launch{Request: event.RequestID(serial), LaunchRequest: kernel.LaunchRequest{Key: owner + "@" + sp.Version,
		Spec: sealed}}
	for k := range n {
		l.Instances = append(l.Instances, kernel.InstanceID(fmt.Sprintf("%s.%d.%d", owner[1:], serial, k)))
	}
	return l
}

var serial int // of launches, in all tests of this file

func placedOf(fx Effects) (n int) {
	for _, r := range fx.Replies {
		if r.Launch != nil {
			n += len(r.Launch.Placed)
		}
	}
	return n
}

func TestLaunchesOfOneStepShareWhatThereIs(t *testing.T) {
	s, step := poolOf(t, 10)
	step(asks(t, "/a/one", "/a", 8, nil), asks(t, "/b/one", "/b", 8, nil), asks(t, "/b/two", "/b", 8, nil))
	if a, b := s.capacity.quota.View("/a").Used, s.capacity.quota.View("/b").Used; a.MilliCPU != 5000 ||
		b.MilliCPU != 5000 {
		t.Errorf("two groups that ask at once for more than there is: /a has %v, /b has %v, want half each", a, b)
	}
}

func TestAGuaranteeHoldsAgainstAllLaunchesOfOneStep(t *testing.T) {
	s, step := poolOf(t, 10)
	step(event.SetQuota{Request: 1, Quota: kernel.Quota{Role: "/held", Guarantee: kernel.Resources{MilliCPU: 5000},
		Limit: kernel.NoLimit}})
	step(asks(t, "/b/one", "/b", 4, nil), asks(t, "/c/one", "/c", 4, nil), asks(t, "/c/two", "/c", 4, nil))
	if used := s.capacity.quota.View("/").Used; used.MilliCPU != 5000 {
		t.Errorf("others use %v of 10 cpus, 5 of which are held", used)
	}
	if n := placedOf(step(asks(t, "/held/one", "/held", 5, nil))); n != 5 {
		t.Errorf("%d of 5 are placed within their guarantee", n)
	}
}

func TestOneKeyLaunchedTwiceInAStep(t *testing.T) {
	_, step := poolOf(t, 1)
	step(asks(t, "/a/one", "/a", 2, nil))
	fx := step(asks(t, "/a/one", "/a", 1, nil), asks(t, "/a/one", "/a", 1, nil), asks(t, "/b/one", "/b", 1, nil),
		event.SetQuota{Request: 1, Quota: kernel.Quota{Role: "/z", Limit: kernel.NoLimit}})
	if len(fx.Replies) != 4 {
		t.Errorf("got %d replies, want one to each of 4 requests", len(fx.Replies))
	}
}

func TestAnAppsVersionsDoNotMakeWayForEachOther(t *testing.T) {
	s, step := poolOf(t, 2)
	step(asks(t, "/a/one", "/a", 2, nil))
	step(asks(t, "/a/one", "/a", 1, func(k *kernel.Spec) { k.Version, k.Priority = "2", 10 }))
	for range 5 {
		step(event.Tick{})
	}
	for _, i := range s.Instances("") {
		if i.Goal() != kernel.GoalRun {
			t.Errorf("instance %s of the version before is stopped: %s", i.ID(), i.Assignment().Why)
		}
	}
}

func TestNoMoreMakeWayThanTheQuotaNeeds(t *testing.T) {
	s, step := poolOf(t, 10)
	step(event.SetQuota{Request: 1, Quota: kernel.Quota{Role: "/a", Limit: kernel.Resources{MilliCPU: 2000, Mem: -1,
		Disk: -1, GPUs: -1}}})
	step(asks(t, "/a/big", "/a", 2, nil))
	// younger, of another resource
	step(asks(t, "/a/free", "/a", 4, func(k *kernel.Spec) { k.Tasks[0].Guarantee = kernel.Resources{Mem: kernel.MiB} }))
	step(asks(t, "/a/high", "/a", 1, func(k *kernel.Spec) { k.Priority = 10 }))
	step(event.Tick{})
	var gone []string
	for _, i := range s.Instances("") {
		if i.Goal() == kernel.GoalStop {
			gone = append(gone, i.Owner)
		}
	}
	if len(gone) != 1 || gone[0] != "/a/big" {
		t.Errorf("instances of %v make way, want one of /a/big", gone)
	}
}

func TestAMachineThatShrinksBelowItsReservationsIsNotGivenMore(t *testing.T) {
	s, step := poolOf(t, 8)
	step(event.Reserve{Request: 1, Agent: "a", ReservedPart: kernel.ReservedPart{Role: "/a",
		Amount: kernel.Resources{MilliCPU: 6000}}})
	step(event.AgentUp{Session: 2, Seq: 1, Registration: kernel.Registration{Incarnation: "1",
		Agent: kernel.Agent{ID: "a", Hostname: "a", Address: netip.MustParseAddr("192.0.2.1"),
			Total: kernel.Resources{MilliCPU: 4000, Mem: 64 * kernel.GiB}}}})
	n := placedOf(step(asks(t, "/a/one", "/a", 6, func(k *kernel.Spec) { k.Reserved = kernel.ReservedOnly })))
	if used, _ := s.capacity.pool.Used("a"); n != 4 || used.MilliCPU != 4000 {
		t.Errorf("%d are placed with %v, want the 4 that the machine has", n, used)
	}
}

func TestWhatIsReservedIsNotHeldASecondTime(t *testing.T) {
	_, step := poolOf(t, 20)
	step(event.Reserve{Request: 1, Agent: "a", ReservedPart: kernel.ReservedPart{Role: "/c",
		Amount: kernel.Resources{MilliCPU: 10_000}}})
	step(event.SetQuota{Request: 1, Quota: kernel.Quota{Role: "/d", Guarantee: kernel.Resources{MilliCPU: 10_000},
		Limit: kernel.NoLimit}})
	if n := placedOf(step(asks(t, "/c/one", "/c", 10, nil))); n != 10 {
		t.Errorf("%d of 10 are placed in their reservation beside the guarantee of others", n)
	}
	if n := placedOf(step(asks(t, "/d/one", "/d", 10, nil))); n != 10 {
		t.Errorf("%d of 10 are placed in their guarantee beside the reservation of others", n)
	}
}

func TestWhatAsksForGPUsWaitsForAMachineThatHasSome(t *testing.T) {
	s, step := poolOf(t, 10)
	step(asks(t, "/a/net", "/a", 1, func(k *kernel.Spec) { k.Tasks[0].Guarantee.GPUs = 2 }))
	queue := s.Queue("f")
	if len(queue) != 1 || !strings.Contains(queue[0].Refusal.String(), "gpus") {
		t.Fatalf("queue: got %v, want one that lacks gpus", queue)
	}
	step(event.AgentUp{Session: 99, Seq: 1, Registration: kernel.Registration{Incarnation: "1",
		Agent: kernel.Agent{ID: "gpu", Hostname: "gpu",
			Total: kernel.Resources{MilliCPU: 4000, Mem: kernel.GiB, GPUs: 3}}}})
	step(asks(t, "/a/more", "/a", 1, func(k *kernel.Spec) { k.Tasks[0].Guarantee.GPUs = 2 }))
	if used, _ := s.capacity.pool.Used("gpu"); used.GPUs != 2 || len(s.Queue("f")) != 1 {
		t.Errorf("the machine with three: got %v used and %d waiting, want the first on it and the second waiting", used,
			len(s.Queue("f")))
	}
}
