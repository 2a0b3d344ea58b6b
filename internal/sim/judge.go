package sim

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/sim/machine"
	"github.com/marinaos/marina/internal/sim/rare"
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

	kept    map[string]bool // hostnames of machines on which room is kept for what waits, at the last check
	checked time.Duration   // when convergence was last looked at
	quiet   time.Duration   // since when all has been as asked for; negative: it is not
}

// truth keeps the known facts of an instance that is durable or runs.
type truth struct {
	owner   string
	agent   *machine.Agent // where it runs
	running int            // containers
	durable bool           // assigned by the newest revision
	goal    kernel.Goal
	excused bool // given up as unreachable
	broken  bool // one of its containers ended, so that the others will
	counted bool // in its owner's tally
}

// tally counts the instances of an owner that are live and count, and those there may be.
type tally struct {
	live  int
	bound int // the target, or an earlier and higher one for as long as the scheduler is on its way down

	goal    int  // where bound sinks to
	sinking bool // as live does
}

func newJudge(w *World) *judge {
	return &judge{w: w, ledger: invariant.NewLedger(), members: invariant.NewMembers(subnets),
		orphans: invariant.Orphans{Limit: w.Slow(orphanLimit)},
		kept:    map[string]bool{}, truth: map[kernel.InstanceID]*truth{}, count: map[string]*tally{},
		rows: durable{specs: map[kernel.SpecID]*kernel.Spec{}, chunks: map[string][]kernel.Assignment{}}}
}

func (j *judge) Hold(v []invariant.Violation) {
	for i := range v {
		j.w.Note("judge", "VIOLATION ", v[i].Error(), 0, 0)
	}
	j.violations = append(j.violations, v...)
}

// step judges what time alone can break.
func (j *judge) step() { j.Hold(j.orphans.Judge(j.w.Wall())) }

func (j *judge) elected(epoch int64) {
	j.leader = epoch
	j.Hold(j.fences.Elected(epoch))
}

func (j *judge) Applied(a *machine.Agent, epoch int64) { j.Hold(j.fences.Applied(a.ID, epoch)) }

// published takes what the newest leader tells its schedulers.
func (j *judge) published(changes []*kernel.Record) {
	for _, r := range changes {
		c := r.Instance()
		for k := range c.Statuses {
			if !c.Known { // after a change of leader, before its agent reported
				break
			}
			j.Hold(j.tasks.Observe(c.Statuses[k].Task, c.Statuses[k].State))
		}
		state := kernel.Running
		if c.Removed {
			state = kernel.Gone
		}
		j.Hold(j.groups.Observe(kernel.TaskID(c.ID), state))
	}
}

// Made takes a container that came to be.
func (j *judge) Made(a *machine.Agent, c *machine.Container) {
	j.Hold(j.intents.Exists(c.Group, a.ID))
	j.Seen(a, c)
	t := j.of(c.Group)
	t.agent = a
	t.running++
	j.recount(c.Group, t)
	j.explain(c.Group, t)
}

// Seen takes a container that a new agent process found alive.
func (j *judge) Seen(a *machine.Agent, c *machine.Container) {
	j.Hold(j.identities.Observe(invariant.Process{Task: c.Task, Agent: a.ID, Boot: fmt.Sprint(c.Boot), PID: c.PID,
		Started: c.Started}))
}

// Ended takes a container whose process ended.
func (j *judge) Ended(a *machine.Agent, c *machine.Container) {
	t := j.of(c.Group)
	if t.running == 0 {
		return
	}
	t.running--
	t.broken = true
	j.recount(c.Group, t)
	j.explain(c.Group, t)
}

// Dialed takes an agent that has a session with a master, which counts if that is the leader.
func (j *judge) Dialed(a *machine.Agent, epoch int64) {
	j.Connected(a, epoch == j.leader)
	if epoch != j.leader {
		return
	}
	for _, g := range a.Instances {
		if t := j.truth[g.ID]; t != nil && !t.durable && !g.Dropped {
			j.w.Reach(rare.ReturnedAfterForget)
		}
	}
}

func (j *judge) Connected(a *machine.Agent, is bool) { j.orphans.Connected(a.ID, is, j.w.Wall()) }

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
		j.w.Reach(rare.OrphanRan)
		j.orphans.Unexplained(t.agent.ID, id, t.agent.Link != nil, j.w.Wall())
		return
	}
	j.orphans.Settled(t.agent.ID, id)
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
	j.Hold(invariant.UpperBound(invariant.OwnerInstances{Owner: owner, Instances: c.bound, Live: c.live}))
}

// upper bounds the live instances of an app: its strategy's share more than it has, and one more where
// otherwise nothing could be replaced.
func upper(a *marathon.App) int {
	if a == nil {
		return 0
	}
	n, u := float64(a.Instances), a.UpgradeStrategy
	most := int(math.Floor(n*(1+u.MaximumOverCapacity) + 1e-9))
	if int(math.Ceil(n*u.MinimumHealthCapacity-1e-9)) == most {
		most++
	}
	return most
}
