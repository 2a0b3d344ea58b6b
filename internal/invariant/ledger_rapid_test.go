package invariant

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

// TestLedgerAgreesWithAFullScan drives the incremental ledger beside one that forgets nothing and scans everything.
func TestLedgerAgreesWithAFullScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLedger()
		durable := map[kernel.InstanceID]Placement{}
		const capacity = 3
		for a := range 3 {
			l.Agent(agentName(a), kernel.Resources{MilliCPU: capacity}, netip.Prefix{})
		}
		for revision := range rapid.IntRange(1, 30).Draw(t, "revisions") {
			placed := map[kernel.AgentID]bool{}
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				g := kernel.InstanceID(fmt.Sprint("g", rapid.IntRange(0, 9).Draw(t, "group")))
				if p, ok := durable[g]; ok {
					delete(durable, g)
					l.Remove(g, p.Agent)
					continue
				}
				p := Placement{Instance: g, Agent: agentName(rapid.IntRange(0, 2).Draw(t, "agent")), Role: "/",
					Guarantee: kernel.Resources{MilliCPU: 1},
					Ports:     []HostPort{{uint16(rapid.IntRange(1, 9).Draw(t, "port")), "tcp"}}}
				durable[g], placed[p.Agent] = p, true
				l.Place(p)
			}
			want := broken(durable, placed, capacity)
			got := map[ID]bool{}
			for _, v := range l.Judge(int64(revision)) {
				got[v.ID] = true
			}
			if got[I13Capacity] != want[I13Capacity] {
				t.Fatalf("revision %d: ledger says %v, the scan %v", revision, got, want)
			}
			if got[I14Exclusive] && !want[I14Exclusive] {
				t.Fatalf("revision %d: the ledger sees two holders where the scan sees none", revision)
			}
			if want[I14Exclusive] { // the ledger tells a clash once, when it comes to be: the run ends here
				if !got[I14Exclusive] {
					t.Fatalf("revision %d: the ledger missed two holders", revision)
				}
				return
			}
		}
	})
}

func agentName(i int) kernel.AgentID { return kernel.AgentID(fmt.Sprint("a", i)) }

func broken(durable map[kernel.InstanceID]Placement, placed map[kernel.AgentID]bool, capacity int64) map[ID]bool {
	out, used, ports := map[ID]bool{}, map[kernel.AgentID]int64{}, map[string]bool{}
	for _, p := range durable {
		used[p.Agent] += p.Guarantee.MilliCPU
		k := fmt.Sprint(p.Agent, p.Ports[0])
		out[I14Exclusive] = out[I14Exclusive] || ports[k]
		ports[k] = true
	}
	for a := range placed {
		out[I13Capacity] = out[I13Capacity] || used[a] > capacity
	}
	return out
}
