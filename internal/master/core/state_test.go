package core

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/vip"
)

func TestAuditKeepsWhatIsBrokenFromTheStore(t *testing.T) {
	p := newPlayer(t)
	p.do(strings.Fields("up session=1 agent=a1"))
	audit := NewAudit(p.state)
	fx := p.state.Step(p.now, p.event("launch", args{t, strings.Fields("groups=g1,g2,g3")}))
	if err := audit.Judge(p.state, &fx); err != nil {
		t.Fatalf("what placement decided: %v", err)
	}
	one := p.state.instance("g1").placement()
	for name, spoil := range map[string]func(*invariant.Placement){
		"address":  func(*invariant.Placement) {},
		"capacity": func(i *invariant.Placement) { i.Address, i.Guarantee.MilliCPU = netip.Addr{}, 5000 },
	} {
		bad := one
		bad.Instance = kernel.InstanceID("bad-" + name)
		spoil(&bad)
		if err := audit.Judge(p.state, &Effects{Charges: []Charge{{Placement: bad, Begins: true}}}); err == nil {
			t.Errorf("broken %s: got no error", name)
		}
		audit.totals.GiveBack(bad)
		audit.judgeTotals(p.state)
	}
}

func TestInputThatNoRowCanHoldIsRefused(t *testing.T) {
	p := newPlayer(t)
	reg := p.registration(args{t, nil})
	reg.Agent.Attributes = map[string]string{"long": strings.Repeat("x", maxAgentBytes)}
	if fx := p.state.Step(p.now, event.AgentUp{Session: 1, Seq: 1, Registration: reg}); len(fx.Ends) != 1 ||
		len(fx.Writes) != 0 {
		t.Errorf("huge registration: ends %v, writes %v, want it refused", fx.Ends, fx.Writes)
	}
	for _, words := range []string{"groups=g1 vip=" + strings.Repeat("v", 300),
		"groups=g1 framework=" + strings.Repeat("f", 200),
		"groups=" + strings.Repeat("g", 300), "groups=g1 key=" + strings.Repeat("k",
			600), "groups=", "groups=g1 role=/a//b"} {
		fx := p.state.Step(p.now, p.event("launch", args{t, strings.Fields(words)}))
		if len(fx.Replies) != 1 || fx.Replies[0].Err == nil || len(fx.Writes) != 0 {
			t.Errorf("launch %.20s: got %v and writes %v, want it refused", words, fx.Replies, fx.Writes)
		}
	}
}

func TestVIPsOfOthersAreRefused(t *testing.T) {
	for addr, refused := range map[string]bool{"127.0.0.1": true, "203.0.113.9": true, "198.18.0.9": false} {
		p := newPlayer(t)
		ev := p.event("launch", args{t, []string{"groups=g", "vip=hello"}}).(event.Launch)
		ev.Spec.Tasks[0].Ports[0].VIPs = append(ev.Spec.Tasks[0].Ports[0].VIPs,
			kernel.VIP{Addr: netip.MustParseAddr(addr), Port: 80})
		var err error
		if ev.Spec, err = ev.Spec.Seal(); err != nil {
			t.Fatal(err)
		}
		fx := p.state.Step(p.now, ev)
		if len(fx.Replies) != 1 || errdefs.IsInvalidArgument(fx.Replies[0].Err) != refused {
			t.Errorf("VIP at %s: %+v, want refused to be %v", addr, fx.Replies, refused)
		}
	}
}

// TestSharedVIPOfEarlierReleaseIsLoaded has rows in which a literal address is that of a named VIP: what is placed
// stays, more is refused.
func TestSharedVIPOfEarlierReleaseIsLoaded(t *testing.T) {
	p := newPlayer(t)
	for _, line := range []string{"up session=1 agent=a1", "launch groups=g1 vip=hello",
		"launch groups=g2 owner=/o key=k literal=198.18.0.9"} {
		p.do(strings.Fields(line))
	}
	p.rows["kernel/vips/hello.marathon"] = []byte(`{"addr":"198.18.0.9"}`)
	if out := p.lead(); strings.Contains(out, "problem") || len(p.state.Instances("")) != 2 {
		t.Errorf("loading: got %q and %d instances, want no problem and 2", out, len(p.state.Instances("")))
	}
	fx := p.state.Step(p.now, p.event("launch", args{t, strings.Fields("groups=g3 owner=/o key=k literal=198.18.0.9")}))
	if len(fx.Replies) != 1 || !errdefs.IsInvalidArgument(fx.Replies[0].Err) {
		t.Errorf("one more: got %+v, want it refused", fx.Replies)
	}
}

// TestSameEventsGiveTheSameEffects plays random events into two states, and after them loads what was written into a
// third, which must show the same instances.
func TestSameEventsGiveTheSameEffects(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a, b := newPlayer(t), newPlayer(t)
		sessions := 0
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			agent := rapid.IntRange(1, 3).Draw(r, "agent")
			g := func() string { return fmt.Sprintf("g%d", rapid.IntRange(1, 12).Draw(r, "group")) }
			var line string
			switch rapid.IntRange(0, 8).Draw(r, "event") {
			case 0:
				sessions++
				line = fmt.Sprintf("up session=%d agent=a%d epoch=0", sessions, agent)
			case 1:
				line = fmt.Sprintf("down session=%d", rapid.IntRange(0, sessions).Draw(r, "session"))
			case 2, 3:
				line = fmt.Sprintf("launch groups=%s,%s,%s vip=v owner=/o%d key=k%d literal=198.18.0.%d", g(), g(), g(), agent,
					agent, agent)
			case 4:
				line = fmt.Sprintf("stop groups=%s,%s", g(), g())
			case 5:
				line = fmt.Sprintf("forget groups=%s", g())
			case 6:
				line = fmt.Sprintf("withdraw key=k%d", agent)
			default:
				state := rapid.SampledFrom([]string{"running", "killed", "failed"}).Draw(r, "state")
				line = fmt.Sprintf("frame session=%d statuses=%s:%s:%d", rapid.IntRange(1, max(1, sessions)).Draw(r, "session"),
					g(), state,
					rapid.IntRange(1, 5).Draw(r, "seq"))
			}
			line += fmt.Sprintf(" after=%dms", rapid.IntRange(0, 3000).Draw(r, "after"))
			if x, y := a.do(strings.Fields(line)), b.do(strings.Fields(line)); x != y {
				r.Fatalf("%s: the same event gave\n%s\nand\n%s", line, x, y)
			}
		}
		want := groupsOf(a.state)
		if out := a.lead(); strings.Contains(out, "problem") {
			r.Fatalf("loading what was written: %s", out)
		}
		if diff := cmp.Diff(want, groupsOf(a.state)); diff != "" {
			r.Fatalf("groups after a change of leader (-before +after):\n%s", diff)
		}
		for _, s := range []*State{a.state, b.state} {
			uses := map[netip.Addr]int{}
			for sp := range s.specs.All {
				for addr := range vip.Literals(&sp.Spec) {
					uses[addr]++
				}
			}
			for n := range byte(4) {
				addr := netip.AddrFrom4([4]byte{198, 18, 0, n})
				if s.vips.LiteralUses(addr) != uses[addr] {
					r.Fatalf("literal address %s: %d uses by specs, kept as %d", addr, uses[addr], s.vips.LiteralUses(addr))
				}
			}
		}
	})
}

func groupsOf(s *State) map[kernel.InstanceID]string {
	out := map[kernel.InstanceID]string{}
	for _, r := range s.Instances("") {
		i := r.Instance()
		out[i.ID] = fmt.Sprint(i.Agent, i.Address, i.HostPorts, i.Goal, i.Placed.Format(time.RFC3339Nano))
	}
	return out
}

// TestALookBetweenStepsLeavesNoStaleEndpoints looks at the addresses before a step that changes the endpoints and in
// which an agent joins: it is told what there is after the step.
func TestALookBetweenStepsLeavesNoStaleEndpoints(t *testing.T) {
	p := newPlayer(t)
	for _, line := range []string{"up session=1 agent=a1", "launch groups=g1 vip=hello",
		"frame session=1 statuses=g1:running:1", "tick after=3s"} {
		p.do(strings.Fields(line))
	}
	if views := p.state.Addresses(); len(views) != 2 || len(views[0].Backend) != 1 {
		t.Fatalf("addresses: got %+v, want tcp and udp with a backend", views)
	}
	fx := p.state.Step(p.now, p.event("stop", args{t, []string{"groups=g1"}}),
		p.event("up", args{t, strings.Fields("session=2 agent=a2")}))
	told := false
	for _, send := range fx.Sends {
		if d := send.Down.Endpoints; send.Session == 2 && d != nil {
			told = true
			if len(d.Set) != 1 || d.Set[0].Ready {
				t.Errorf("the agent that joins is told version %d: %+v, want the instance to be stopping", d.To, d.Set)
			}
		}
	}
	if !told {
		t.Error("the agent that joins is told no endpoints")
	}
}
