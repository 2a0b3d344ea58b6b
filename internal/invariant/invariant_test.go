package invariant

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// expect fails unless got is one violation of id whose facts contain the words, or none if id is empty.
func expect(t *testing.T, what string, got []Violation, id ID, words ...string) {
	t.Helper()
	switch {
	case id == "" && len(got) == 0:
		return
	case id == "" || len(got) != 1 || got[0].ID != id:
		t.Errorf("%s: got %v, want one violation of %q", what, got, id)
		return
	}
	for _, w := range words {
		if !strings.Contains(got[0].Facts, w) {
			t.Errorf("%s: facts %q do not name %q", what, got[0].Facts, w)
		}
	}
}

func TestUpperBoundCountsWhatIsNotExcused(t *testing.T) {
	f := OwnerInstances{Owner: "/web", Instances: 10, MaxOver: 0.25, Live: 13}
	expect(t, "13 of 13", UpperBound(f), "")
	f.Live = 14
	expect(t, "14 of 13", UpperBound(f), I5UpperBound, "/web", "14", "13")
	f.Excused = 1
	expect(t, "14, one excused", UpperBound(f), "")
}

func TestConvergedWantsEveryInstanceLiveOrExplained(t *testing.T) {
	expect(t, "all live", Converged(OwnerInstances{Owner: "/web", Instances: 3, Live: 3}), "")
	expect(t, "one missing", Converged(OwnerInstances{Owner: "/web", Instances: 3, Live: 2}), I7Converged, "/web")
	expect(t, "one too many", Converged(OwnerInstances{Owner: "/web", Instances: 3, Live: 4}), I7Converged)
	expect(t, "one waits and says why", Converged(OwnerInstances{Instances: 3, Live: 2, Waiting: 1, Reason: "no room"}), "")
	expect(t, "one waits silently", Converged(OwnerInstances{Instances: 3, Live: 2, Waiting: 1}), I7Converged, "reason")
}

func TestTaskKeepsItsProcess(t *testing.T) {
	var ids Identities
	p := Process{Task: "t1", Agent: "a1", Boot: "b1", PID: 7, Started: time.Unix(10, 0)}
	expect(t, "first seen", ids.Observe(p), "")
	expect(t, "seen again", ids.Observe(p), "")
	for name, change := range map[string]func(*Process){
		"pid": func(p *Process) { p.PID = 8 }, "agent": func(p *Process) { p.Agent = "a2" },
		"boot": func(p *Process) { p.Boot = "b2" }, "start": func(p *Process) { p.Started = time.Unix(11, 0) },
	} {
		q := p
		change(&q)
		expect(t, name, ids.Observe(q), I8OneProcess, "t1")
	}
}

func TestEndedTaskStaysAsItEnded(t *testing.T) {
	var ends Terminals
	for _, s := range []kernel.State{kernel.Staging, kernel.Running, kernel.Finished, kernel.Finished} {
		expect(t, s.String(), ends.Observe("t1", s), "")
	}
	expect(t, "another end", ends.Observe("t1", kernel.Failed), I10TerminalStays, "TASK_FINISHED", "TASK_FAILED")
	expect(t, "alive again", ends.Observe("t1", kernel.Running), I10TerminalStays)
}

func TestContainerNeedsADurableIntentOnItsMachine(t *testing.T) {
	var in Intents
	expect(t, "no intent", in.Exists("g1", "a1"), I12IntentFirst, "g1", "a1")
	expect(t, "committed", in.Durable("g1", "a1", 5), "")
	expect(t, "explained", in.Exists("g1", "a1"), "")
	expect(t, "elsewhere", in.Exists("g1", "a2"), I12IntentFirst, "a2")
	expect(t, "assigned twice", in.Durable("g1", "a2", 6), I14Exclusive, "g1")
}

func TestOrphanIsOverdueOnlyWhileItsAgentIsConnected(t *testing.T) {
	o := Orphans{Limit: 30 * time.Second}
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	o.Unexplained("a1", "g1", true, at(0))
	expect(t, "within the limit", o.Judge(at(30)), "")
	expect(t, "overdue", o.Judge(at(31)), I11NoOrphan, "a1", "g1")
	o.Connected("a1", false, at(31))
	expect(t, "away", o.Judge(at(1000)), "")
	o.Connected("a1", true, at(1000))
	expect(t, "back", o.Judge(at(1030)), "")
	expect(t, "overdue again", o.Judge(at(1031)), I11NoOrphan)
	o.Settled("a1", "g1")
	expect(t, "stopped", o.Judge(at(2000)), "")
}

func TestNothingOfAnOldLeaderHasAnEffect(t *testing.T) {
	var f Fences
	expect(t, "first leader", f.Elected(5), "")
	expect(t, "its write", f.Committed(5, 6), "")
	expect(t, "its frame", f.Applied("a1", 5), "")
	expect(t, "second leader", f.Elected(9), "")
	expect(t, "old frame to an agent that knows no better", f.Applied("a2", 5), "")
	expect(t, "new frame", f.Applied("a1", 9), "")
	expect(t, "old frame after it", f.Applied("a1", 5), I19Fenced, "a1")
	expect(t, "old write", f.Committed(5, 10), I19Fenced, "epoch 5")
	expect(t, "epoch that nobody won", f.Applied("a1", 11), I19Fenced)
	expect(t, "epoch that goes back", f.Elected(9), I19Fenced)
}

func placement(g kernel.InstanceID, a kernel.AgentID) Placement {
	return Placement{Instance: g, Agent: a, Role: "/prod/web", Guarantee: kernel.Resources{MilliCPU: 1000}}
}

func TestLedgerJudgesCapacityAndQuotaWhenTheyGrow(t *testing.T) {
	l := NewLedger()
	l.Agent("a1", kernel.Resources{MilliCPU: 3000}, netip.Prefix{})
	l.Quota("/prod", &kernel.Resources{MilliCPU: 2000, Mem: kernel.Unlimited, Disk: kernel.Unlimited})
	expect(t, "limits alone", l.Judge(0), "")
	l.Place(placement("g1", "a1"))
	l.Place(placement("g2", "a1"))
	l.Place(placement("g2", "a1")) // told twice, counted once
	expect(t, "two of two", l.Judge(1), "")
	l.Quota("/prod", &kernel.Resources{MilliCPU: 1000, Mem: kernel.Unlimited, Disk: kernel.Unlimited})
	expect(t, "a quota may sink below use", l.Judge(2), "")
	l.Place(placement("g3", "a1"))
	expect(t, "growth over the quota", l.Judge(3), I13Capacity, "/prod", "3 cpus", "1 cpus", "revision 3")
	l.Quota("/prod", nil)
	l.Place(placement("g4", "a1"))
	expect(t, "growth over the machine", l.Judge(4), I13Capacity, "a1", "4 cpus")
	l.Remove("g1", "a1")
	l.Remove("g1", "a1")
	l.Place(placement("g5", "a1"))
	expect(t, "still over", l.Judge(5), I13Capacity)
	l.Remove("g5", "a1")
	l.Remove("g4", "a1")
	expect(t, "within again", l.Judge(6), "")
	l.Remove("g3", "a1")
	l.Place(placement("g6", "a1"))
	l.Quota("/prod", &kernel.Resources{})
	expect(t, "placed, then lowered, in one revision", l.Judge(7), "")
	l.Place(placement("g7", "a1"))
	expect(t, "the lower quota counts from then on", l.Judge(8), I13Capacity)
}

func TestLedgerJudgesHoldersAtTheEndOfARevision(t *testing.T) {
	addr, port := netip.MustParseAddr("10.0.0.9"), HostPort{Number: 31000, Protocol: "tcp"}
	with := func(g kernel.InstanceID, a kernel.AgentID) Placement {
		p := placement(g, a)
		p.Ports, p.Address = []HostPort{port}, addr
		return p
	}
	l := NewLedger()
	l.Place(with("g1", "a1"))
	expect(t, "one holder", l.Judge(1), "")
	l.Place(with("g2", "a1"))
	l.Remove("g1", "a1")
	expect(t, "handed over in one revision", l.Judge(2), "")
	l.Place(with("g3", "a2"))
	expect(t, "same address, same port elsewhere", l.Judge(3), I14Exclusive, "10.0.0.9", "g2", "g3")
	l.Remove("g3", "a2")
	p := with("g4", "a1")
	p.Address = netip.Addr{}
	l.Place(p)
	expect(t, "same port", l.Judge(4), I14Exclusive, "31000/tcp", "a1", "g2", "g4")
	l.Place(with("g4", "a2"))
	expect(t, "one id on two agents", l.Judge(5), I14Exclusive, "g4", "a1", "a2")
}

func TestLedgerJudgesVIPsAndSubnets(t *testing.T) {
	addr := netip.MustParseAddr("198.18.0.1")
	l := NewLedger()
	l.VIP("hello.marathon", addr)
	l.VIP("hello.marathon", addr)
	expect(t, "one VIP", l.Judge(1), "")
	l.VIP("other.marathon", addr)
	expect(t, "two VIPs, one address", l.Judge(2), I14Exclusive, "hello.marathon", "other.marathon")
	l.Agent("a1", kernel.Resources{}, netip.MustParsePrefix("10.1.0.0/24"))
	l.Agent("a2", kernel.Resources{}, netip.MustParsePrefix("10.1.1.0/24"))
	expect(t, "two subnets", l.Judge(3), "")
	l.Agent("a3", kernel.Resources{}, netip.MustParsePrefix("10.1.1.128/25"))
	expect(t, "overlap", l.Judge(4), I14Exclusive, "a2", "a3")
}

func TestHostPortsHasOnePerProtocol(t *testing.T) {
	s := kernel.Spec{Tasks: []kernel.TaskSpec{{Ports: []kernel.Port{{Protocol: "udp,tcp"}, {Protocol: "tcp"}}}, {Ports: []kernel.Port{{Protocol: "udp"}}}}}
	want := []HostPort{{31000, "udp"}, {31000, "tcp"}, {31001, "udp"}}
	if got := HostPorts(&s, []uint16{31000, 0, 31001}); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSometimesTellsWhatWasNeverReached(t *testing.T) {
	s := NewSometimes("fence rejected", "brake held")
	s.Reached("brake held")
	if got := s.Never(); !slices.Equal(got, []string{"fence rejected"}) {
		t.Errorf("never reached: got %v, want fence rejected", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a name that is not on the list was counted")
		}
	}()
	s.Reached("fence rejectd")
}

func TestJudgingAllocatesNothingWhileAllHolds(t *testing.T) {
	l, o := NewLedger(), Orphans{Limit: time.Second}
	l.Agent("a1", kernel.Resources{MilliCPU: 1e6}, netip.Prefix{})
	p := placement("g1", "a1")
	p.Ports, p.Address = []HostPort{{31000, "tcp"}}, netip.MustParseAddr("10.0.0.9")
	if got := testing.AllocsPerRun(100, func() {
		l.Place(p)
		l.Judge(1)
		l.Remove("g1", "a1")
		l.Judge(2)
		o.Judge(time.Time{})
		UpperBound(OwnerInstances{Instances: 3, Live: 3})
	}); got != 0 {
		t.Errorf("judging allocated %v times, want none", got)
	}
}

// A datacenter lives for years: roles and machines that are gone leave nothing behind.
func TestBooksForgetRolesAndMachinesThatAreGone(t *testing.T) {
	b := NewTotals()
	none := func(func(*Placement) bool) []kernel.InstanceID { return nil }
	for n := range 3 * spareMost {
		role, agent := fmt.Sprintf("/dev/user-%d", n), kernel.AgentID(fmt.Sprint("a", n))
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24)
		b.Agent(agent, kernel.Resources{MilliCPU: 4000}, subnet)
		b.Quota(role, &kernel.Resources{MilliCPU: 2000})
		p := Placement{Instance: "g", Agent: agent, Role: role, Guarantee: kernel.Resources{MilliCPU: 1000}, Ports: []HostPort{{31000, "tcp"}}, Address: subnet.Addr().Next()}
		b.Take(p)
		if got := b.Judge(1, none); len(got) > 0 {
			t.Fatalf("judge: %v", got)
		}
		b.Quota(role, nil)
		b.DropAgent(agent)
		b.GiveBack(p)
		if got := b.Judge(2, none); len(got) > 0 {
			t.Fatalf("judge: %v", got)
		}
	}
	if len(b.machines)+len(b.roles) > spareMost || len(b.subnets) > 0 {
		t.Errorf("books of an empty datacenter keep %d machines, %d roles and %d subnets", len(b.machines), len(b.roles), len(b.subnets))
	}
}
