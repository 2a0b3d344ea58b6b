package placement

import (
	"fmt"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// Explain counts, for each filter, the machines that it is the first to turn down. It looks at all of them.
func (p *Pool) Explain(r *Request) kernel.Refusal {
	ref := kernel.Refusal{Agents: len(p.machines)}
	add := func(filter string, n int, detail string) {
		if n > 0 {
			ref.Reasons = append(ref.Reasons, kernel.Rejected{Filter: filter, Agents: n, Detail: detail})
		}
	}
	add("unreachable", len(p.machines)-p.open.n, "")
	var left set
	left.become(&p.open)
	for _, rule := range r.rules {
		before := left.n
		for i := range left.each {
			if !rule.allows(i) {
				left.put(i, false)
			}
		}
		add(rule.String(), before-left.n, rule.detail())
	}
	var lack [len(components)]int
	var most [len(components)]int64
	ports, address := 0, 0
	for i := range left.each {
		free := p.sums[0][i].free
		if c := slices.IndexFunc(components[:], func(name string) bool { return component(r.need, name) > component(free, name) }); c >= 0 {
			most[c] = max(most[c], component(free, components[c]))
			lack[c]++
		} else if !p.machines[i].hasPorts(r) {
			ports++
		} else if r.address && p.machines[i].addresses.free() == 0 {
			address++
		}
	}
	for c, name := range components {
		add(name, lack[c], fmt.Sprintf("asks %s, the most free on one machine is %s",
			amount(component(r.need, name), name), amount(most[c], name)))
	}
	add("ports", ports, r.portsAsked())
	add("address", address, "no address of the machine's subnet is free")
	return ref
}

// components of resources, in the order in which they are asked for.
var components = [...]string{"cpus", "mem", "disk", "gpus"}

func (r *Request) portsAsked() string {
	if len(r.fixed) > 0 {
		return fmt.Sprintf("asks for host ports %v and %d more", r.fixed, r.any)
	}
	return fmt.Sprintf("asks for %d host ports", r.any)
}

func component(r kernel.Resources, name string) int64 {
	switch name {
	case "cpus":
		return r.MilliCPU
	case "mem":
		return r.Mem
	case "disk":
		return r.Disk
	default:
		return r.GPUs
	}
}

func amount(n int64, name string) string {
	switch name {
	case "cpus":
		return fmt.Sprintf("%g", float64(n)/1000)
	case "mem", "disk":
		return kernel.FormatBytes(n)
	default:
		return fmt.Sprint(n)
	}
}
