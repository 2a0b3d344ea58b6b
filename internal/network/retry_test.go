package network

import (
	"errors"
	"iter"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
)

// recordedRules are rules in memory that can refuse changes.
type recordedRules struct {
	Rules
	refuse   int // so many changes
	open     map[Port]bool
	backends map[Frontend][]netip.AddrPort
}

func (r *recordedRules) ChangeRules(c RuleChange) error {
	if r.refuse > 0 {
		r.refuse--
		return errors.New("the kernel is busy")
	}
	r.open = c.Open
	maps.Copy(r.backends, c.Backends)
	return nil
}

func (r *recordedRules) Frontends() iter.Seq2[Frontend, []netip.AddrPort] {
	return maps.All(r.backends)
}
func (r *recordedRules) Repair() (bool, error) { return false, nil }

type noNames struct{ Names }

func (noNames) ChangeNames(removed, added []kernel.Endpoint) {}

// configured returns a Network as after Configure, which changes nothing on the machine.
func configured(t *testing.T) (*Network, *recordedRules) {
	t.Helper()
	rules := &recordedRules{backends: map[Frontend][]netip.AddrPort{}}
	n, err := New(Config{State: t.TempDir(), ID: "0badcafe"}, rules, noNames{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.recordDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	n.layout = Layout{Subnet: Prefix("10.77.3.0/24")}
	n.table.subnet = n.layout.Subnet
	return n, rules
}

func TestApplyIsRepeatedAfterRulesRefusedIt(t *testing.T) {
	n, rules := configured(t)
	vip := Frontend{netip.MustParseAddr("198.18.0.7"), Port{"tcp", 80}}
	endpoints := []kernel.Endpoint{{Task: "web.1", Address: netip.MustParseAddr("10.77.3.10"), Ready: true,
		Ports: []kernel.EndpointPort{{Protocol: "tcp", Container: 80,
			VIPs: []kernel.EndpointVIP{{Addr: vip.Addr, Port: vip.Number}}}}}}
	rules.refuse = 1
	if err := n.Apply(t.Context(), endpoints); err == nil {
		t.Error("Apply succeeded although the rules refused the change")
	}
	if err := n.Apply(t.Context(), endpoints); err != nil {
		t.Errorf("Apply again: %v", err)
	}
	if want := []netip.AddrPort{netip.MustParseAddrPort("10.77.3.10:80")}; !slices.Equal(rules.backends[vip], want) {
		t.Errorf("backends of the VIP: got %v, want %v", rules.backends[vip], want)
	}
	rules.refuse = 1
	if err := n.Apply(t.Context(), nil); err == nil {
		t.Error("Apply succeeded although the rules refused the change")
	}
	n.repairRules()
	if to, there := rules.backends[vip]; !there || to != nil {
		t.Errorf("backends of the VIP after a repair: got %v, want it removed", to)
	}
}

func TestHoldIsRepeatedAfterRulesRefusedIt(t *testing.T) {
	n, rules := configured(t)
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	a := kernel.Attachment{Instance: "host", Mode: kernel.NetworkHost, Ports: []kernel.Mapping{{Protocol: "tcp", Host: port}}}
	rules.refuse = 1
	if err := n.OpenPorts(t.Context(), a); err == nil {
		t.Error("OpenPorts succeeded although the rules refused the change")
	}
	if err := n.OpenPorts(t.Context(), a); err != nil {
		t.Errorf("OpenPorts again: %v", err)
	}
	if !rules.open[Port{"tcp", port}] {
		t.Errorf("open ports: got %v, want port %d among them", rules.open, port)
	}
}
