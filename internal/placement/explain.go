package placement

import (
	"fmt"

	"github.com/marinaos/marina/internal/kernel"
)

// explain counts, for each filter, the machines that it was the first to turn down.
func (p *Pool) explain(r *Request, tallies []tally) kernel.Refusal {
	ref := kernel.Refusal{Agents: len(p.machines)}
	type found struct {
		agents int
		most   int64
	}
	closed, ports, address := 0, 0, 0
	constraints := make([]int, len(r.static))
	bundles, bundle := 0, ""
	lacks := map[string]*found{"cpus": {}, "mem": {}, "disk": {}, "gpus": {}}
	for i := range p.machines {
		m := &p.machines[i]
		if !p.open[i] {
			closed++
			continue
		}
		if c := r.rejecting(m, tallies); c >= 0 {
			constraints[c]++
			continue
		}
		if b := m.without(r); b != "" {
			bundle = b
			bundles++
			continue
		}
		if short := r.need.Lacking(p.free[i]); len(short) > 0 {
			f := lacks[short[0]]
			f.most = max(f.most, component(p.free[i], short[0]))
			f.agents++
			continue
		}
		switch {
		case !m.hasPorts(r):
			ports++
		case r.address && m.addresses.free() == 0:
			address++
		}
	}
	add := func(filter string, n int, detail string) {
		if n > 0 {
			ref.Reasons = append(ref.Reasons, kernel.Rejected{Filter: filter, Agents: n, Detail: detail})
		}
	}
	add("unreachable", closed, "")
	for c, n := range constraints {
		add(r.static[c].String(), n, "")
	}
	add("bundle "+bundle, bundles, "these programs are not on the machine")
	for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
		add(name, lacks[name].agents, fmt.Sprintf("asks %s, the most free on one machine is %s",
			amount(component(r.need, name), name), amount(lacks[name].most, name)))
	}
	add("ports", ports, r.portsAsked())
	add("address", address, "no address of the machine's subnet is free")
	return ref
}

// rejecting is the index of the first constraint that machine m fails, -1 for none.
func (r *Request) rejecting(m *machine, tallies []tally) int {
	t := 0
	for c := range r.static {
		ok := r.static[c].holds(&m.Machine)
		if r.static[c].counted() {
			v, _ := m.field(r.static[c].Field)
			ok = ok && tallies[t].allows(v)
			t++
		}
		if !ok {
			return c
		}
	}
	return -1
}

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
