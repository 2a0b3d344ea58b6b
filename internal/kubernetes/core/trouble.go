package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Step names what may be refused, of one member or of the whole cluster.
type Step string

// What may be refused.
const (
	ExposeStep  Step = "expose load balancers"
	ReleaseStep Step = "release its volume"
	BuryStep    Step = "remove what is left"
	RowStep     Step = "write its row"
	supplyStep  Step = "load images"
)

// trouble is a step of one cluster that was refused. It is tried again with growing pauses, and told in the cluster's
// view until it succeeds; it keeps nothing else of the cluster, and no other cluster, from going on.
type trouble struct {
	why   string
	tries int
	again time.Time
}

// troubles are those of a cluster.
type troubles map[troubleKey]*trouble

// troubleKey names a step of a member; of the whole cluster: "".
type troubleKey struct {
	member string
	step   Step
}

// maxSupplyPause bounds the pause before images are loaded again: each try sends whole archives.
const maxSupplyPause = 10 * time.Minute

// maxWhy bounds how much of an error is told.
const maxWhy = 300

// fail notes that a step was refused, and returns a sentence if that has another reason than before.
func (t troubles) fail(member string, step Step, err error, now time.Time) string {
	at := troubleKey{member, step}
	x := t[at]
	if x == nil {
		x = &trouble{}
		t[at] = x
	}
	longest := maxPause
	if step == supplyStep {
		longest = maxSupplyPause
	}
	x.again = now.Add(min(firstPause<<min(x.tries, 20), longest))
	x.tries++
	if why := fmt.Sprintf("%.*s", maxWhy, err.Error()); x.why != why {
		x.why = why
		return at.sentence(x)
	}
	return ""
}

// warnings says what was refused, in sentences.
func (t troubles) warnings() (out []string) {
	for _, at := range slices.SortedFunc(maps.Keys(t), func(a, b troubleKey) int {
		return cmp.Or(cmp.Compare(a.member, b.member), cmp.Compare(a.step, b.step))
	}) {
		out = append(out, at.sentence(t[at])+"; it is tried again at "+t[at].again.UTC().Format(time.TimeOnly))
	}
	return out
}

// forget forgets what concerns a member.
func (t troubles) forget(member string) {
	maps.DeleteFunc(t, func(at troubleKey, _ *trouble) bool { return at.member == member })
}

func (at troubleKey) sentence(t *trouble) string {
	who := ""
	if at.member != "" {
		who = at.member + ": "
	}
	return who + "cannot " + string(at.step) + ": " + t.why
}

// Settle notes what became of a step; a nil error: it succeeded.
func (c *Cluster) Settle(member string, step Step, err error, now time.Time) {
	if err == nil {
		delete(c.troubles, troubleKey{member, step})
		return
	}
	if says := c.troubles.fail(member, step, err, now); says != "" {
		c.AddEvent(now, "%s", says)
	}
}

// Again returns the time at which a step may be tried; zero: now.
func (c *Cluster) Again(member string, step Step) time.Time {
	if t := c.troubles[troubleKey{member, step}]; t != nil {
		return t.again
	}
	return time.Time{}
}
