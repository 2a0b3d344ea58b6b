package invariant

import (
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
)

// Sometimes counts how often rare paths were reached. Its names are fixed when it is made; counting is safe from any
// goroutine. A nil one counts nothing, so that code may count without asking.
type Sometimes struct {
	names  []string
	counts map[string]*atomic.Int64 // never written after New
}

// NewSometimes returns a list of rare paths, none reached yet.
func NewSometimes(names ...string) *Sometimes {
	s := &Sometimes{names: slices.Sorted(slices.Values(names)), counts: make(map[string]*atomic.Int64, len(names))}
	for _, n := range names {
		s.counts[n] = new(atomic.Int64)
	}
	return s
}

// Reached counts a name. One that is not on the list is a mistake in the program: it panics, or a misspelt path would
// never be missed.
func (s *Sometimes) Reached(name string) {
	if s == nil {
		return
	}
	c := s.counts[name]
	if c == nil {
		panic(fmt.Sprintf("rare path %q is not on the list", name))
	}
	c.Add(1)
}

// Never lists what was not reached, in order.
func (s *Sometimes) Never() []string {
	var out []string
	for _, n := range s.names {
		if s.counts[n].Load() == 0 {
			out = append(out, n)
		}
	}
	return out
}

// All yields every name with how often it was reached, in order.
func (s *Sometimes) All() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		for _, n := range s.names {
			if !yield(n, s.counts[n].Load()) {
				return
			}
		}
	}
}
