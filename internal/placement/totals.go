package placement

import "github.com/marinaos/marina/internal/kernel"

// totals sums up the open machines.
type totals struct {
	all, free kernel.Resources
}

// Total sums up the open machines: all resources, and those not used. Unused reserved parts count as free, amounts
// set aside for waiting instances do not.
func (p *Pool) Total() (total, free kernel.Resources) { return p.totals.all, p.totals.free }

// updateMachine brings a machine's share of the totals up to date; free is what it has for every role.
func (t *totals) updateMachine(m *machine, open bool, free kernel.Resources) {
	for k := range m.reservedParts {
		free = free.Add(m.reservedParts[k].unused())
	}
	t.all, t.free = t.all.Sub(m.counted.all), t.free.Sub(m.counted.free)
	m.counted = totals{}
	if open {
		m.counted = totals{m.Total, free.Most(kernel.Resources{})}
		t.all, t.free = t.all.Add(m.counted.all), t.free.Add(m.counted.free)
	}
}
