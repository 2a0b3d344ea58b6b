package placement

import (
	"fmt"

	"github.com/marinaos/marina/internal/kernel"
)

// Explain counts, for each filter, the machines that it is the first to turn down. It visits all machines.
func (p *Pool) Explain(r *Request) kernel.Refusal {
	ref := kernel.Refusal{Agents: len(p.ids)}
	add := func(filter string, n int, detail string) {
		if n > 0 {
			ref.Reasons = append(ref.Reasons, kernel.Rejected{Filter: filter, Agents: n, Detail: detail})
		}
	}
	add("unreachable", len(p.ids)-p.open.n, "")
	var left set
	left.copyFrom(&p.open)
	for _, rule := range r.rules {
		before := left.n
		for i := range left.each {
			if !rule.allows(i) {
				left.setMember(i, false)
			}
		}
		add(rule.String(), before-left.n, rule.detail())
	}
	before := left.n
	for i := range left.each {
		if !p.machines[i].hasReserved(r) {
			left.setMember(i, false)
		}
	}
	add("reservation", before-left.n, "nothing is reserved there for "+r.role)
	var lack [len(kernel.Components)]int
	var most [len(kernel.Components)]kernel.Resources
	ports, address := 0, 0
	for i := range left.each {
		if free := p.freeFor(r, i); !r.need.Fits(free) {
			have := free.Parts()
			for c, n := range r.need.Parts() {
				if n > have[c] {
					most[c] = most[c].Most(free)
					lack[c]++
					break
				}
			}
		} else if !p.machines[i].hasPorts(r) {
			ports++
		} else if r.address && p.machines[i].addresses.free() == 0 {
			address++
		}
	}
	for c, name := range kernel.Components {
		add(name, lack[c], fmt.Sprintf("asks %s, the most free on one machine is %s",
			r.need.Amount(name), most[c].Amount(name)))
	}
	add("ports", ports, r.portsAsked())
	add("address", address, "no address of the machine's subnet is free")
	return ref
}

func (r *Request) portsAsked() string {
	if len(r.fixedPorts) > 0 {
		return fmt.Sprintf("asks for host ports %v and %d more", r.fixedPorts, r.anyPorts)
	}
	return fmt.Sprintf("asks for %d host ports", r.anyPorts)
}
