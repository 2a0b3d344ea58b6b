package timeline

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Trace keeps a hash of all that happened, and writes it out when somebody wants to read it. Two runs of a seed have
// equal hashes; a difference means that something is not decided by the seed.
type Trace struct {
	Hash uint64
	out  io.Writer // nil: hashed only
}

const fnvOffset, fnvPrime = 14695981039346656037, 1099511628211

// NewTrace returns the trace of nothing so far. out gets a line for each note; nil: it is hashed only.
func NewTrace(out io.Writer) Trace { return Trace{Hash: fnvOffset, out: out} }

func (t *Trace) word(v uint64) {
	t.Hash ^= v
	t.Hash *= fnvPrime
	t.Hash ^= t.Hash >> 29
}

func (t *Trace) text(s string) {
	for i := range len(s) {
		t.Hash = (t.Hash ^ uint64(s[i])) * fnvPrime
	}
}

// Note tells one thing that happened: who did what to which thing, with two numbers. what is a phrase with two verbs
// for the numbers at most.
func (t *Trace) Note(now time.Duration, who, what, which string, a, b int64) {
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
