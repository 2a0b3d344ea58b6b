package daemon

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/network"
	"github.com/marinaos/marina/internal/settings"
)

// ranges are the datacenter's addresses on this machine, in a file of the state directory. Those that nobody named are
// chosen once, among what nobody on the machine has, and stay: what has an address keeps it.
type ranges struct {
	Pool netip.Prefix `json:"pool"`
	VIPs netip.Prefix `json:"vips"`
}

func (c *config) rangesFile() string { return c.path("ranges.json") }

// keptRanges are those of an earlier start, if there was one. A file that is there and cannot be read is no first
// start: what runs has addresses of the ranges that it said.
func (c *config) keptRanges() (r ranges, ok bool, err error) {
	b, err := os.ReadFile(c.rangesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (!r.Pool.IsValid() || !r.VIPs.IsValid()) {
		err = errors.New("it does not say pool and vips")
	}
	if err != nil {
		return ranges{}, false, fmt.Errorf("%s: %w: write back {\"pool\": ..., \"vips\": ...} as they were (marina "+
			"machine list knows parts of the pool): %w",
			c.rangesFile(), err, errdefs.ErrDataLoss)
	}
	return r, true, nil
}

// chooseRanges settles on the ranges: those that were said, else those of an earlier start, else free ones. Others than
// those of an earlier start are refused: machines, instances and VIPs have addresses of those.
func (c *config) chooseRanges() error {
	kept, known, err := c.keptRanges()
	if err != nil {
		return err
	}
	if !known && (c.Pool == "" || c.VIPs == "") {
		kept = c.freeRanges()
	}
	pool, vips := cmp.Or(c.Pool, kept.Pool.String()), cmp.Or(c.VIPs, kept.VIPs.String())
	if c.pool, err = prefix("container pool", pool, 8, 20); err != nil {
		return err
	}
	if c.vips, err = prefix("VIP range", vips, 8, 24); err != nil {
		return err
	}
	switch {
	case known && kept.Pool != c.pool:
		return refused("container pool %s: this datacenter's is %s since its first start", c.pool, kept.Pool)
	case known && kept.VIPs != c.vips:
		return refused("VIP range %s: this datacenter's is %s since its first start", c.vips, kept.VIPs)
	}
	c.Pool, c.VIPs = pool, vips
	return nil
}

// freeRanges returns ranges that nobody on the machine has.
func (c *config) freeRanges() ranges {
	var pools, vips []netip.Prefix
	if c.State == settings.State {
		vips = append(vips, netip.MustParsePrefix("198.18.0.0/16"))
	}
	for i := range byte(128) { // one /16 of 10.128.0.0/9, beginning with one for each state path
		pools = append(pools, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + (c.seed+i)%128, 0, 0}), 16))
	}
	for i := range byte(32) { // one /20 of 198.18.0.0/15, those last that the usual state path would take
		vips = append(vips, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19 - i/16, (c.seed + i) % 16 * 16, 0}), 20))
	}
	return ranges{c.free(pools), c.free(vips)}
}

// free is the first of some ranges that nobody on the machine has; if there is none the first, which preflight refuses.
func (c *config) free(candidates []netip.Prefix) netip.Prefix {
	for _, p := range candidates {
		if network.CheckConflicts(network.BridgeName(c.id), p, p) == nil {
			return p
		}
	}
	return candidates[0]
}

// keepRanges writes down what this start uses.
func (c *config) keepRanges() error {
	b, err := json.Marshal(ranges{c.pool, c.vips})
	if err == nil {
		err = replaceFile(c.rangesFile(), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("address ranges: %w", err)
	}
	return nil
}
