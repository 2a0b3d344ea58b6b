package queue

import (
	"slices"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
)

// ServeFairly tries entries: roles take turns as the quota tree says, an instance at a time; within one, the higher
// priority is first, then what waits longest. place tries up to n instances of an entry, takes those that it places out
// of it, and returns how many. None is in another's way.
func ServeFairly(tried []*Entry, quota *allocator.Tree, place func(e *Entry, n int) int) {
	if oneRole(tried) {
		l := line{entries: tried}
		l.order()
		for _, e := range l.entries {
			place(e, len(e.Instances))
		}
		return
	}
	lines := map[string]*line{}
	for _, e := range tried {
		l := lines[e.Spec.Role]
		if l == nil {
			l = &line{}
			lines[e.Spec.Role] = l
		}
		l.entries = append(l.entries, e)
	}
	waiting := make(map[string]kernel.Resources, len(lines))
	for role, l := range lines {
		l.order()
		waiting[role] = l.next()
	}
	round := quota.Round(waiting)
	for role, ok := round.Next(); ok; role, ok = round.Next() {
		l := lines[role]
		if e := l.entries[0]; place(e, 1) == 0 || len(e.Instances) == 0 {
			l.entries = l.entries[1:]
		}
		if len(l.entries) == 0 {
			round.Done(role)
		} else {
			round.Served(role, l.next())
		}
	}
}

func oneRole(entries []*Entry) bool {
	return !slices.ContainsFunc(entries, func(e *Entry) bool { return e.Spec.Role != entries[0].Spec.Role })
}

// line is the entries of one role, in the order in which they are tried.
type line struct{ entries []*Entry }

// order puts the higher priority first and leaves the rest as it is, longest waiting first.
func (l *line) order() {
	slices.SortStableFunc(l.entries, func(a, b *Entry) int { return b.Spec.Priority - a.Spec.Priority })
}

// next returns the resources that the next instance of a line needs for itself.
func (l *line) next() kernel.Resources {
	if sp := l.entries[0].Spec; !sp.Preemptible() {
		return sp.Need
	}
	return kernel.Resources{}
}
