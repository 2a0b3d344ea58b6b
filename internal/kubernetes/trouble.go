package kubernetes

import (
	"fmt"
	"time"
)

// trouble is a step of one cluster that was refused. It is tried again with growing pauses, and told in the cluster's
// view until it succeeds; it keeps nothing else of the cluster, and no other cluster, from going on.
type trouble struct {
	why   string
	tries int
	again time.Time
}

// step names what may be refused: of a member, or of the whole cluster.
type step struct{ member, what string }

// What may be refused.
const (
	exposeStep  = "expose load balancers"
	releaseStep = "release its volume"
	supplyStep  = "load images"
	buryStep    = "remove what is left"
	rowStep     = "write its row"
)

// maxSupplyPause bounds the pause before images are loaded again: each try sends whole archives.
const maxSupplyPause = 10 * time.Minute

// maxWhy is how much of an error is told.
const maxWhy = 300

// fail notes that a step was refused.
func (c *cluster) fail(member, what string, err error, now time.Time) {
	t := c.troubles[step{member, what}]
	if t == nil {
		t = &trouble{}
		c.troubles[step{member, what}] = t
	}
	longest := maxPause
	if what == supplyStep {
		longest = maxSupplyPause
	}
	why := fmt.Sprintf("%.*s", maxWhy, err.Error())
	if t.why != why {
		t.why = why
		c.add(now, t.sentence(step{member, what}))
	}
	t.again = now.Add(min(firstPause<<min(t.tries, 20), longest))
	t.tries++
}

// mend notes that a step succeeded.
func (c *cluster) mend(member, what string) { delete(c.troubles, step{member, what}) }

// again is when a step may be tried; the zero time: now.
func (c *cluster) again(member, what string) time.Time {
	if t := c.troubles[step{member, what}]; t != nil {
		return t.again
	}
	return time.Time{}
}

func (t *trouble) sentence(s step) string {
	who := ""
	if s.member != "" {
		who = s.member + ": "
	}
	return who + "cannot " + s.what + ": " + t.why
}
