package placement

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

// model is the state that a Pool should have, kept in plain lists.
type model struct {
	usual    kernel.Strategy
	machines []Machine
	open     []bool
	live     []instance
	reserved map[kernel.AgentID]map[string]int64 // thousandths of a core, by role
}

type instance struct {
	spec    kernel.Spec
	request *Request
	at      Placement
}

// TestThePlaceIsTheOneThatAPlainSearchFinds changes machines and instances at random, and compares each placement
// with a search that visits everything.
func TestThePlaceIsTheOneThatAPlainSearchFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		usual := rapid.SampledFrom([]kernel.Strategy{kernel.StrategySpread, kernel.StrategyBinpack}).Draw(t, "usual")
		w, p := &model{usual: usual, reserved: map[kernel.AgentID]map[string]int64{}}, NewPool(usual)
		racks := rapid.SampledFrom([]int{1, 3, 10}).Draw(t, "racks")
		join := func(i int) {
			m := testMachine(i%200, rapid.SampledFrom([]int64{0, 1000, 2000, 4000}).Draw(t, "cpus"), "")
			m.ID, m.Hostname = kernel.AgentID(fmt.Sprintf("a%d", i)), fmt.Sprintf("h%d", i)
			m.Attributes = map[string]string{}
			for _, f := range []string{"rack", "disk"} {
				if v := rapid.IntRange(0, racks).Draw(t, f); v > 0 {
					m.Attributes[f] = fmt.Sprintf("r%d", v)
				}
			}
			if i%2 == 0 {
				m.Bundles = map[string]string{"kubernetes/v1": "v1.2"}
			}
			if i < len(w.machines) {
				w.machines[i] = m
			} else {
				w.machines, w.open = append(w.machines, m), append(w.open, false)
			}
			p.Set(m)
			w.open[i] = rapid.IntRange(0, 5).Draw(t, "open") > 0
			p.Open(m.ID, w.open[i])
		}
		for i := range rapid.SampledFrom([]int{1, 3, 3, 9, 9, 70, 700}).Draw(t, "machines") {
			join(i)
		}
		kinds := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 3).Draw(t, "kinds")
		for range rapid.IntRange(20, 60).Draw(t, "steps") {
			switch what := rapid.SampledFrom([]string{"end", "end", "end", "join", "reserve", "place", "place"}).Draw(t,
				"what"); {
			case what == "end" && len(w.live) > 0:
				k := rapid.IntRange(0, len(w.live)-1).Draw(t, "ends")
				gone := w.live[k]
				p.Release(gone.request, gone.at)
				w.live = slices.Delete(w.live, k, k+1)
				if !slices.ContainsFunc(w.live, func(i instance) bool { return i.request == gone.request }) {
					p.Drop(gone.request)
				}
			case what == "reserve":
				w.reserve(t, p)
			case what == "join":
				join(rapid.IntRange(0, len(w.machines)).Draw(t, "joins"))
			case what == "place":
				s := constrained(t, rapid.SampledFrom(kinds).Draw(t, "kind"))
				r, err := p.Prepare(&s)
				if err != nil {
					t.Fatal(err)
				}
				for range rapid.IntRange(1, 5).Draw(t, "k") {
					w.place(t, p, s, r)
				}
				if !slices.ContainsFunc(w.live, func(i instance) bool { return i.request == r }) {
					p.Drop(r)
				}
			}
		}
		for _, i := range w.live {
			p.Release(i.request, i.at)
		}
		for n, i := range w.live {
			if slices.IndexFunc(w.live, func(o instance) bool { return o.request == i.request }) == n {
				p.Drop(i.request)
			}
		}
		if n := len(p.owners) + len(p.series) + len(p.filters) + len(p.fields); n > 0 {
			t.Fatalf("%d things are kept for requests that are gone", n)
		}
	})
}

func constrained(t *rapid.T, kind int) kernel.Spec {
	s := kernel.Spec{Framework: "f", Owner: rapid.SampledFrom([]string{"/a", "/b"}).Draw(t, "owner"),
		Network: kernel.Network{Mode: kernel.NetworkHost},
		Tasks: []kernel.TaskSpec{{Guarantee: kernel.Resources{MilliCPU: rapid.SampledFrom([]int64{0, 100, 700}).Draw(t,
			"cpus")}}}}
	s.Strategy = rapid.SampledFrom([]kernel.Strategy{"", "", kernel.StrategySpread, kernel.StrategyBinpack}).Draw(t,
		"strategy")
	s.Version = strconv.Itoa(kind) // versions of an owner have constraints of their own
	s.Role = rapid.SampledFrom([]string{"/x", "/x/y", "/z"}).Draw(t, "role")
	s.Reserved = rapid.SampledFrom([]kernel.Reserved{kernel.ReservedToo, kernel.ReservedToo, kernel.ReservedNone,
		kernel.ReservedOnly}).Draw(t, "reserved")
	field := []string{"rack", "hostname", "disk"}[kind%3]
	switch kind {
	case 0:
	case 1:
		s.Constraints = []kernel.Constraint{{Field: field, Operator: "UNIQUE"}}
	case 2:
		s.Constraints = []kernel.Constraint{{Field: field, Operator: "MAX_PER", Value: "2"},
			{Field: "rack", Operator: "GROUP_BY"}}
	case 3, 4:
		s.Constraints = []kernel.Constraint{{Field: field, Operator: "GROUP_BY"}}
	case 5:
		s.Constraints = []kernel.Constraint{{Field: field, Operator: "CLUSTER"}}
	case 6:
		s.Constraints = []kernel.Constraint{{Field: field, Operator: "UNLIKE", Value: "r[12]"}}
		s.Tasks[0].Bundles = []string{"kubernetes/v1"}
	case 7:
		s.Constraints = []kernel.Constraint{{Field: "disk", Operator: "LIKE", Value: "r."},
			{Field: "rack", Operator: "IS", Value: "r1"}, {Field: "rack", Operator: "CLUSTER", Value: "r1"}}
	case 9:
		s.Constraints = []kernel.Constraint{{Field: "rack", Operator: "GROUP_BY"}, {Field: "disk", Operator: "GROUP_BY"}}
	case 8:
		s.Constraints = []kernel.Constraint{{Field: "hostname", Operator: "LIKE", Value: "h[13]"}}
	}
	return s
}

// place has the pool place one instance and judges it.
func (w *model) place(t *rapid.T, p *Pool, s kernel.Spec, r *Request) {
	on := map[kernel.AgentID][]instance{}
	for _, l := range w.live {
		on[l.at.Agent] = append(on[l.at.Agent], l)
	}
	rules := make([]func(Machine) bool, len(s.Constraints))
	for k, c := range s.Constraints {
		rules[k] = w.rule(&s, c, on)
	}
	owned := func(m Machine) (n int) {
		for _, l := range on[m.ID] {
			if l.spec.Owner == s.Owner {
				n++
			}
		}
		return n
	}
	points := func(m Machine) int64 {
		free, _ := w.free(m, on[m.ID], nil)
		return (share(free.MilliCPU, m.Total.MilliCPU)+share(free.Mem, m.Total.Mem))<<16 - int64(len(on[m.ID]))
	}
	var can, first []Machine // first are those with something reserved for it
	for i, m := range w.machines {
		free, own := w.free(m, on[m.ID], &s)
		ok := w.open[i] && s.Guarantee().Fits(free) && (own || s.Reserved != kernel.ReservedOnly)
		for _, b := range s.Tasks[0].Bundles {
			ok = ok && m.Bundles[b] != ""
		}
		for _, rule := range rules {
			ok = ok && rule(m)
		}
		if ok {
			can = append(can, m)
		}
		if ok && own && s.Reserved != kernel.ReservedNone {
			first = append(first, m)
		}
	}
	if len(first) > 0 {
		can = first
	}
	got := p.Place(r, 1)
	if (len(got) == 1) != (len(can) > 0) {
		t.Fatalf("%v of %s: placed %d, machines %v could take it: %s", s.Constraints, s.Owner, len(got), can, p.Explain(r))
	}
	if len(got) == 0 {
		refusal, total := p.Explain(r), 0
		for _, c := range refusal.Reasons {
			total += c.Agents
		}
		if total != len(w.machines) || refusal.Agents != total {
			t.Fatalf("refusal explains %d of %d machines: %s", total, len(w.machines), refusal)
		}
		return
	}
	at := slices.IndexFunc(can, func(m Machine) bool { return m.ID == got[0].Agent })
	if at < 0 {
		t.Fatalf("%v of %s: on %s, of the allowed %v", s.Constraints, s.Owner, got[0].Agent, can)
	}
	pack := s.Strategy == kernel.StrategyBinpack || s.Strategy == "" && w.usual == kernel.StrategyBinpack
	for _, m := range can {
		if pack && points(m) < points(can[at]) {
			t.Fatalf("packed on %s with %d points, %s has %d", got[0].Agent, points(can[at]), m.ID, points(m))
		}
		if !pack && owned(m) < owned(can[at]) || !pack && owned(m) == owned(can[at]) && points(m) > points(can[at]) {
			t.Fatalf("on %s with %d of its owner and %d points, %s has %d and %d",
				got[0].Agent, owned(can[at]), points(can[at]), m.ID, owned(m), points(m))
		}
	}
	w.live = append(w.live, instance{s, r, got[0]})
}

// reserve changes what of a machine is reserved for a role.
func (w *model) reserve(t *rapid.T, p *Pool) {
	m := rapid.SampledFrom(w.machines).Draw(t, "machine")
	role := rapid.SampledFrom([]string{"/x", "/z"}).Draw(t, "for")
	amount := rapid.SampledFrom([]int64{0, 300, 1500}).Draw(t, "amount")
	if w.reserved[m.ID] == nil {
		w.reserved[m.ID] = map[string]int64{}
	}
	w.reserved[m.ID][role] = amount
	p.Reserve(m.ID, role, kernel.Resources{MilliCPU: amount}, w.used(m.ID, role))
}

// used returns what instances on a machine use of the part reserved for a role.
func (w *model) used(id kernel.AgentID, role string) (used kernel.Resources) {
	for _, l := range w.live {
		if l.at.Agent == id && kernel.Within(l.spec.Role, role) && l.spec.Reserved != kernel.ReservedNone {
			used = used.Add(l.spec.Guarantee())
		}
	}
	return used
}

// free returns what a machine has free for instances of a spec, or for everybody if s is nil, and whether a part is
// reserved for it.
func (w *model) free(m Machine, on []instance, s *kernel.Spec) (free kernel.Resources, own bool) {
	free = m.Total
	for _, l := range on {
		free = free.Sub(l.spec.Guarantee())
	}
	left := kernel.Resources{}
	for role, amount := range w.reserved[m.ID] {
		unused := kernel.Resources{MilliCPU: max(0, amount-w.used(m.ID, role).MilliCPU)}
		free = free.Sub(unused)
		if s != nil && amount > 0 && kernel.Within(s.Role, role) {
			left, own = unused, true
		}
	}
	switch {
	case s == nil || s.Reserved == kernel.ReservedNone:
		return free, own
	case s.Reserved == kernel.ReservedOnly:
		return left.Least(free.Add(left)), own
	}
	return free.Add(left), own
}

// rule judges machines by a constraint, from nothing but the machines and what runs on them.
func (w *model) rule(s *kernel.Spec, c kernel.Constraint, on map[kernel.AgentID][]instance) func(Machine) bool {
	count, total := map[string]int{}, 0 // instances of this version by value
	held := map[string]bool{}           // by an open machine
	for k, m := range w.machines {
		if v, has := m.field(c.Field); has {
			held[v] = held[v] || w.open[k]
			for _, l := range on[m.ID] {
				if l.spec.Owner == s.Owner && l.spec.Version == s.Version {
					count[v]++
					total++
				}
			}
		}
	}
	least := -1
	for v, open := range held {
		if n := count[v]; open && (least < 0 || n < least) {
			least = n
		}
	}
	limit, _ := strconv.Atoi(c.Value)
	like := regexp.MustCompile("^(?:" + c.Value + ")$")
	return func(m Machine) bool {
		v, has := m.field(c.Field)
		switch c.Operator {
		case "UNLIKE":
			return !has || !like.MatchString(v)
		case "LIKE":
			return has && like.MatchString(v)
		case "IS":
			return has && v == c.Value
		case "UNIQUE":
			return has && count[v] == 0
		case "MAX_PER":
			return has && count[v] < limit
		case "GROUP_BY":
			return has && count[v] <= least
		}
		return has && (c.Value != "" && v == c.Value || c.Value == "" && (total == 0 || count[v] > 0))
	}
}
