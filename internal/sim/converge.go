package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	services "github.com/marinaos/marina/internal/services/core"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/store"
)

// checkEvery is the interval at which the judge looks whether all has converged, once faults have ended.
const checkEvery = 500 * time.Millisecond

// healed takes that faults have ended.
func (j *judge) healed() { j.checked, j.quiet = j.w.Now, -1 }

// settledFor reports whether all has been as asked for, for d.
func (j *judge) settledFor(d time.Duration) bool {
	if j.w.Now < j.checked+j.w.Slow(checkEvery) {
		return false
	}
	j.checked = j.w.Now
	switch {
	case len(j.adrift()) > 0:
		j.quiet = -1
	case j.quiet < 0:
		j.quiet = j.w.Now
	}
	return j.quiet >= 0 && j.w.Now-j.quiet >= d
}

// converged judges I7 at the end.
func (j *judge) converged() { j.Hold(j.adrift()) }

// adrift lists what is not as asked for, by ground truth.
func (j *judge) adrift() (out []invariant.Violation) {
	m := j.w.leader()
	if m == nil {
		return []invariant.Violation{{ID: invariant.I7Converged, Facts: "nobody leads"}}
	}
	waits := map[string]kernel.Waiting{}
	clear(j.kept)
	for _, q := range append(m.state.Queue(framework), m.state.Queue(marathon.Framework)...) {
		if q.Backfill != "" {
			j.w.Reach(rare.Backfilled)
			j.kept[q.Backfill] = true
		}
		q.Instances = append(q.Instances, waits[q.Owner].Instances...)
		waits[q.Owner] = q
	}
	live := j.live()
	fleet := func(owner string, n int, rolling bool) {
		q := waits[owner]
		if rolling && len(q.Instances) > 0 { // a deployment holds as many of the old as its strategy says until there is room
			n = live[owner] + len(q.Instances)
		}
		f := invariant.OwnerInstances{Owner: owner, Instances: n, Live: live[owner], Waiting: len(q.Instances),
			Reason: q.Refusal.String()}
		delete(live, owner)
		if f.Waiting > 0 {
			f.Fits = j.machineFor(&q)
		}
		out = append(out, invariant.Converged(f)...)
	}
	for _, a := range j.w.apps {
		fleet(a.owner, a.target, false)
	}
	for _, id := range slices.Sorted(maps.Keys(j.w.intents.apps)) {
		fleet(id, j.w.intents.apps[id].Instances, true)
	}
	for _, owner := range slices.Sorted(maps.Keys(live)) {
		fleet(owner, 0, false)
	}
	for _, d := range j.w.intents.deployments {
		if !slices.ContainsFunc(d.Changes, func(c services.Change) bool { return len(waits[c.App].Instances) > 0 }) {
			out = append(out, invariant.Violation{ID: invariant.I7Converged,
				Facts: fmt.Sprintf("deployment %s of %s does not end", d.ID, d.Changes[0].App)})
		}
	}
	out = append(out, clinging(j)...)
	return append(out, j.strays()...)
}

// clinging lists what the count keeper has given up long ago and still has on machines that never come back: few
// enough are away.
func clinging(j *judge) (out []invariant.Violation) {
	for _, key := range slices.Sorted(maps.Keys(j.rows.chunks)) {
		seg, err := store.Segments(key)
		if err != nil || len(j.rows.chunks[key]) == 0 {
			continue
		}
		for _, a := range j.w.agents {
			if string(a.ID) != seg[2] || !a.Gone {
				continue
			}
			for i := range j.rows.chunks[key] {
				g := &j.rows.chunks[key][i]
				if spec := j.rows.specs[g.Spec]; spec != nil && spec.Framework == framework {
					out = append(out, invariant.Violation{ID: invariant.I7Converged,
						Facts: fmt.Sprintf("group %s is still on machine %s, which is gone", g.ID, a.Name)})
				}
			}
		}
	}
	return out
}

// live counts the instances that run as they should, by owner.
func (j *judge) live() map[string]int {
	out := map[string]int{}
	for _, t := range j.truth {
		if t.running > 0 && t.durable && t.goal == kernel.GoalRun && !t.broken {
			out[t.owner]++
		}
	}
	return out
}

// roomFor names a machine that could take an instance that waits.
func (j *judge) machineFor(q *kernel.Waiting) string {
	spec := j.specOf(q)
	if strings.Contains(q.Refusal.Quota, "held for the guarantees of others") {
		j.w.Reach(rare.GuaranteeHeld)
		return ""
	}
	picky := spec.Reservation != nil || len(spec.Constraints) > 0 || len(spec.Ports()) > 0
	if spec.ID == "" || picky || !j.ledger.Affords(spec.Role, spec.Guarantee()) {
		return ""
	}
	for _, a := range j.w.agents {
		if a.Link != nil && !a.Removed && !j.kept[a.Info.Hostname] && spec.Guarantee().Fits(j.ledger.Free(a.ID)) {
			return a.Name
		}
	}
	return ""
}

// specOf returns the spec of what waits, as long as it is still wanted.
func (j *judge) specOf(q *kernel.Waiting) (none kernel.Spec) {
	for _, a := range j.w.apps {
		if a.owner == q.Owner && a.spec.Version == q.Version {
			return a.spec
		}
	}
	if a := j.w.intents.apps[q.Owner]; a != nil && a.Config() == q.Version {
		if spec, err := marathon.Spec(a); err == nil {
			return spec
		}
	}
	return none
}

// strays lists what runs and should not, and agents that go by other endpoints than there are.
func (j *judge) strays() (out []invariant.Violation) {
	adrift := func(format string, args ...any) {
		out = append(out, invariant.Violation{ID: invariant.I7Converged, Facts: fmt.Sprintf(format, args...)})
	}
	ready := map[kernel.TaskID]machine.Endpoint{}
	for _, a := range j.w.agents {
		for _, c := range a.Containers {
			switch t := j.truth[c.Group]; {
			case c.Ended:
				adrift("agent %s still keeps task %s, which ended", a.Name, c.Task)
			case t == nil || !t.durable || t.goal != kernel.GoalRun:
				adrift("agent %s runs task %s, which nothing asks for", a.Name, c.Task)
			default:
				ready[c.Task] = machine.Endpoint{Ready: true, Machine: a.Info.Address}
			}
		}
		if a.Link == nil && !a.Gone && !a.Removed {
			adrift("agent %s has no session", a.Name)
		}
	}
	for _, a := range j.w.agents {
		if a.Gone || a.Removed {
			continue
		}
		if len(a.Endpoints) != len(ready) {
			adrift("agent %s holds %d endpoints, there are %d", a.Name, len(a.Endpoints), len(ready))
			continue
		}
		for id := range a.Endpoints {
			if a.Endpoints[id] != ready[id] {
				adrift("agent %s holds endpoint %s as %v, it is %v", a.Name, id, a.Endpoints[id], ready[id])
				break
			}
		}
	}
	return out
}
