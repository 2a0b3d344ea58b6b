package sim

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// trace is what happened, hashed always and written out when somebody wants to read it. Two runs of a seed have equal
// hashes; a difference means that something is not decided by the seed.
type trace struct {
	hash uint64
	out  io.Writer // nil: hashed only
}

const fnvOffset, fnvPrime = 14695981039346656037, 1099511628211

func (t *trace) word(v uint64) {
	t.hash ^= v
	t.hash *= fnvPrime
	t.hash ^= t.hash >> 29
}

func (t *trace) text(s string) {
	for i := range len(s) {
		t.hash = (t.hash ^ uint64(s[i])) * fnvPrime
	}
}

// note tells one thing that happened: who did what to which thing, with two numbers. what is a phrase with two verbs
// for the numbers at most.
func (t *trace) note(now time.Duration, who, what, which string, a, b int64) {
	t.word(uint64(now))
	t.text(who)
	t.text(what)
	t.text(which)
	t.word(uint64(a))
	t.word(uint64(b))
	if t.out == nil {
		return
	}
	switch strings.Count(what, "%d") {
	case 1:
		what = fmt.Sprintf(what, a)
	case 2:
		what = fmt.Sprintf(what, a, b)
	}
	fmt.Fprintf(t.out, "%12v  %-9s %s %s\n", now.Round(time.Microsecond), who, what, which)
}
