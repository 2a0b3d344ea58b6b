package daemon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"github.com/marinaos/marina/internal/network"
	"github.com/marinaos/marina/internal/settings"
)

// ranges are the datacenter's addresses on this machine, in a file of the state folder. Those that nobody named are chosen
// once, among what nobody on the machine has, and stay: what has an address keeps it.
type ranges struct {
	Pool netip.Prefix `json:"pool"`
	VIPs netip.Prefix `json:"vips"`
}

func (s *site) rangesFile() string { return s.path("ranges.json") }

// keptRanges are those of an earlier start, if there was one.
func (s *site) keptRanges() (r ranges, ok bool) {
	b, err := os.ReadFile(s.rangesFile())
	return r, err == nil && json.Unmarshal(b, &r) == nil && r.Pool.IsValid() && r.VIPs.IsValid()
}

// sameRanges refuses others than those of an earlier start: machines, groups and VIPs have addresses of those.
func (s *site) sameRanges() error {
	r, ok := s.keptRanges()
	switch {
	case ok && r.Pool != s.pool:
		return refused("container pool %s: this datacenter's is %s since its first start", s.pool, r.Pool)
	case ok && r.VIPs != s.vips:
		return refused("VIP range %s: this datacenter's is %s since its first start", s.vips, r.VIPs)
	}
	return nil
}

// defaultRanges are those of an earlier start, or free ones.
func (s *site) defaultRanges() ranges {
	if r, ok := s.keptRanges(); ok {
		return r
	}
	var pools, vips []netip.Prefix
	if s.State == settings.State {
		vips = append(vips, netip.MustParsePrefix("198.18.0.0/16"))
	}
	for i := range byte(128) { // one /16 of 10.128.0.0/9, beginning with one for each state path
		pools = append(pools, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + (s.seed+i)%128, 0, 0}), 16))
	}
	for i := range byte(32) { // one /20 of 198.18.0.0/15, those last that the usual state path would take
		vips = append(vips, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19 - i/16, (s.seed + i) % 16 * 16, 0}), 20))
	}
	return ranges{s.free(pools), s.free(vips)}
}

// free is the first of some ranges that nobody on the machine has; if there is none the first, which preflight refuses.
func (s *site) free(candidates []netip.Prefix) netip.Prefix {
	for _, p := range candidates {
		if network.CheckConflicts(network.BridgeName(s.id), p, p) == nil {
			return p
		}
	}
	return candidates[0]
}

// keepRanges writes down what this start uses.
func (s *site) keepRanges() error {
	b, err := json.Marshal(ranges{s.pool, s.vips})
	if err == nil {
		err = replaceFile(s.rangesFile(), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("address ranges: %w", err)
	}
	return nil
}
