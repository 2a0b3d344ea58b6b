package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// orphanLimit is T_orph: how long a container may run that nothing asks for, while its agent is connected.
const orphanLimit = 30 * time.Second

// judge holds the ground truth beside what is durable, and asks the invariants about both.
type judge struct {
	w          *World
	violations []invariant.Violation
	leader     int64 // epoch of the newest

	identities invariant.Identities
	tasks      invariant.Terminals
	groups     invariant.Terminals // by group: the last of an instance is its end
	intents    invariant.Intents
	orphans    invariant.Orphans
	fences     invariant.Fences
	ledger     *invariant.Ledger
	members    *invariant.Members

	truth map[kernel.InstanceID]*truth
	count map[string]*tally
	rows  durable

	kept    map[string]bool // hostnames of machines on which room is kept for what waits, as convergence was last looked at
	checked time.Duration   // when convergence was last looked at
	quiet   time.Duration   // since when all has been as asked for; negative: it is not
}

// truth is what is known of an instance that is durable or runs.
type truth struct {
	owner   string
	agent   *agent // where it runs
	running int    // containers
	durable bool   // assigned by the newest revision
	goal    kernel.Goal
	excused bool // given up as unreachable
	broken  bool // one of its containers ended, so that the others will
	counted bool // in its owner's tally
}

// tally is how many instances of an owner are live and count, and how many there may be.
type tally struct {
	live  int
	bound int // the target, or an earlier and higher one for as long as the scheduler is on its way down

	goal    int  // where bound sinks to
	sinking bool // as live does
}

func newJudge(w *World) *judge {
	return &judge{w: w, ledger: invariant.NewLedger(), members: invariant.NewMembers(subnets), orphans: invariant.Orphans{Limit: w.slow(orphanLimit)},
		kept: map[string]bool{}, truth: map[kernel.InstanceID]*truth{}, count: map[string]*tally{},
		rows: durable{specs: map[kernel.SpecID]*kernel.Spec{}, chunks: map[string][]kernel.Assignment{}}}
}

func (j *judge) hold(v []invariant.Violation) {
	for i := range v {
		j.w.note("judge", "VIOLATION ", v[i].Error(), 0, 0)
	}
	j.violations = append(j.violations, v...)
}

// step judges what time alone can break.
func (j *judge) step() { j.hold(j.orphans.Judge(j.w.Wall())) }

func (j *judge) elected(epoch int64) {
	j.leader = epoch
	j.hold(j.fences.Elected(epoch))
}

func (j *judge) applied(a *agent, epoch int64) { j.hold(j.fences.Applied(a.id, epoch)) }

// published takes what the newest leader tells its schedulers.
func (j *judge) published(changes []*kernel.Record) {
	for _, r := range changes {
		c := r.Instance()
		for k := range c.Statuses {
			if !c.Known { // after a change of leader, before its agent reported
				break
			}
			j.hold(j.tasks.Observe(c.Statuses[k].Task, c.Statuses[k].State))
		}
		state := kernel.Running
		if c.Removed {
			state = kernel.Gone
		}
		j.hold(j.groups.Observe(kernel.TaskID(c.ID), state))
	}
}

// made takes a container that came to be.
func (j *judge) made(a *agent, c *container) {
	j.hold(j.intents.Exists(c.group, a.id))
	j.seen(a, c)
	t := j.of(c.group)
	t.agent = a
	t.running++
	j.recount(c.group, t)
	j.explain(c.group, t)
}

// seen takes a container that a new agent process found alive.
func (j *judge) seen(a *agent, c *container) {
	j.hold(j.identities.Observe(invariant.Process{Task: c.task, Agent: a.id, Boot: fmt.Sprint(c.boot), PID: c.pid, Started: c.started}))
}

// ended takes a container whose process ended.
func (j *judge) ended(a *agent, c *container) {
	t := j.of(c.group)
	if t.running == 0 {
		return
	}
	t.running--
	t.broken = true
	j.recount(c.group, t)
	j.explain(c.group, t)
}

// dialed takes an agent that has a session with a master, which counts if that is the leader.
func (j *judge) dialed(a *agent, m *master) {
	j.connected(a, m.epoch() == j.leader)
	if m.epoch() != j.leader {
		return
	}
	for _, g := range a.instances {
		if t := j.truth[g.ID]; t != nil && !t.durable && !g.dropped {
			j.w.reach(ReturnedAfterForget)
		}
	}
}

func (j *judge) connected(a *agent, is bool) { j.orphans.Connected(a.id, is, j.w.Wall()) }

// replaced takes an instance that the leader's scheduler gave up because its agent is away.
func (j *judge) replaced(id kernel.InstanceID) {
	t := j.of(id)
	t.excused = true
	j.recount(id, t)
}

func (j *judge) of(id kernel.InstanceID) *truth {
	t := j.truth[id]
	if t == nil {
		owner, _, _ := strings.Cut(string(id), ".instance-")
		t = &truth{owner: "/" + strings.ReplaceAll(owner, "_", "/")}
		j.truth[id] = t
	}
	return t
}

// explain tells the judge of orphans whether an instance's containers are asked for.
func (j *judge) explain(id kernel.InstanceID, t *truth) {
	if t.agent == nil {
		return
	}
	if t.running > 0 && !t.durable {
		j.w.reach(OrphanRan)
		j.orphans.Unexplained(t.agent.id, id, t.agent.link != nil, j.w.Wall())
		return
	}
	j.orphans.Settled(t.agent.id, id)
	if t.running == 0 && !t.durable {
		delete(j.truth, id)
	}
}

// wants takes an app whose target changed.
func (j *judge) wants(a *app) {
	c := j.tally(a.owner)
	c.bound = max(c.bound, a.target)
	j.bound(a.owner, c)
}

// recount brings an owner's tally up to date with one of its instances.
func (j *judge) recount(id kernel.InstanceID, t *truth) {
	counts := t.running > 0 && t.durable && t.goal == kernel.GoalRun && !t.excused && !t.broken
	if counts == t.counted {
		return
	}
	c := j.tally(t.owner)
	if t.counted = counts; counts {
		c.live++
	} else {
		c.live--
	}
	j.bound(t.owner, c)
}

// exact takes that the leader's scheduler has just as many instances of an app as are asked for: from now on that
// binds.
func (j *judge) exact(a *app) {
	c := j.tally(a.owner)
	c.bound = a.target
	j.bound(a.owner, c)
}

// deploys takes that services begins to change an app.
func (j *judge) deploys(app string, to *marathon.App) {
	c := j.tally(app)
	c.bound, c.sinking = max(c.bound, upper(to)), false
}

// deployed takes that services is done with an app: from now on its new definition binds. What is live beyond that,
// such as instances of an app that was removed and made anew in the meantime, may only become less.
func (j *judge) deployed(app string, to *marathon.App) {
	c := j.tally(app)
	c.goal, c.sinking = upper(to), true
	j.bound(app, c)
}

func (j *judge) tally(owner string) *tally {
	c := j.count[owner]
	if c == nil {
		c = &tally{}
		j.count[owner] = c
	}
	return c
}

// bound judges an owner's tally.
func (j *judge) bound(owner string, c *tally) {
	if c.sinking {
		c.bound = max(c.goal, min(c.bound, c.live))
	}
	j.hold(invariant.UpperBound(invariant.OwnerInstances{Owner: owner, Instances: c.bound, Live: c.live}))
}
