package core

import (
	"cmp"
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

// census is an app's instances, sorted into what they count as.
type census struct {
	fresh, old []*Instance // wanted to go on: of the goal's version, of others. Without roll all are fresh
	lost       []*Instance // on machines that do not answer, given up
	ending     int         // stopping, on machines that answer, or with a stop that is not durable yet
	live       int         // all that may be running: fresh, old, and those that are stopping
}

// end withdraws or stops an instance.
func (d *Decision) end(i *Instance, why string) {
	i.Stopping = true
	if i.Waiting {
		d.Withdraw = append(d.Withdraw, Withdraw{Ref{i.Owner, i.ID()}, i.Version})
		return
	}
	d.Stop = append(d.Stop, Stop{Ref{i.Owner, i.ID()}, why})
}

// endIf ends those of a list that match and returns the others. Running ones are left alone until the view is complete.
func (t *turn) endIf(list []*Instance, why string, match func(*Instance) bool) []*Instance {
	return slices.DeleteFunc(list, func(i *Instance) bool {
		if !match(i) || !t.s.Complete && !i.Waiting {
			return false
		}
		t.d.end(i, why)
		if !i.Waiting { // one that waits may have been placed in the meantime: it counts until the kernel has been asked
			t.ending++
		}
		return true
	})
}

// endSome ends the first n of a list, in the order in which instances go.
func (t *turn) endSome(n int, list []*Instance, why string) []*Instance {
	t.order(list)
	return t.endIf(list, why, func(*Instance) bool {
		n--
		return n >= 0
	})
}

// order sorts instances by who goes first: waiting, unreachable, less advanced, not healthy, of another version, and
// then by age as the app's killSelection says. What is not healthy comes before what is, so that nothing done here
// lowers the healthy ones.
func (t *turn) order(list []*Instance) {
	sick := map[*Instance]bool{}
	for _, i := range list {
		if !i.healthy(t.s.definition(i.Owner, i.Version)) {
			sick[i] = true
		}
	}
	rank := func(i *Instance) int {
		switch {
		case i.Waiting:
			return 0
		case !i.Away.IsZero():
			return 2
		case i.State() < kernel.Running:
			return 3 + int(i.State())
		case sick[i]:
			return 8
		case i.Version != t.def.Config():
			return 9
		}
		return 10
	}
	slices.SortStableFunc(list, func(a, b *Instance) int {
		if c := cmp.Compare(rank(a), rank(b)); c != 0 {
			return c
		}
		age := t.s.started(b).Compare(t.s.started(a))
		if t.def.KillSelection == "OLDEST_FIRST" {
			age = -age
		}
		return cmp.Or(age, cmp.Compare(a.ID(), b.ID()))
	})
}
