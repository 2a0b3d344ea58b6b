package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/session"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// remember changes what the agent knows about itself, on disk first.
func (a *Agent) remember(change func(*agentRecord)) error {
	a.mu.Lock()
	next := a.self
	a.mu.Unlock()
	change(&next) // only the one session changes it
	if err := a.dir.Save(agentFile, &next); err != nil {
		return err
	}
	a.mu.Lock()
	a.self = next
	a.mu.Unlock()
	return nil
}

// frames applies the frames of a session to the agent.
type frames struct{ a *Agent }

// Register returns the agent's registration as of now.
func (f frames) Register(out *session.Outbox) kernel.Registration {
	a := f.a
	a.ends.Restart()
	a.mu.Lock()
	defer a.mu.Unlock()
	r := kernel.Registration{Agent: a.describe(), Incarnation: a.incarnation, Boot: a.cfg.Boot, Epoch: a.self.Epoch,
		Endpoints: a.ends.Held(a.self.Epoch), Statuses: []kernel.Status{}}
	for _, g := range a.instances {
		r.Statuses = append(r.Statuses, g.shown...)
	}
	slices.SortFunc(r.Statuses, func(a, b kernel.Status) int { return cmp.Compare(a.Task, b.Task) })
	a.live, a.told = out, r.Agent.Bundles
	return r
}

// Leave forgets a session that is over.
func (f frames) Leave(*session.Outbox) {
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	f.a.live = nil
}

// Epoch is the highest of a leader that was listened to.
func (f frames) Epoch() int64 {
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	return f.a.self.Epoch
}

// Listen makes a higher epoch durable.
func (f frames) Listen(epoch int64) error {
	return f.a.remember(func(r *agentRecord) { r.Epoch = max(r.Epoch, epoch) })
}

// Apply does what a frame says. Groups begin and end in their own time.
func (f frames) Apply(specs map[kernel.SpecID]kernel.Spec, d *kernel.Down) error {
	a := f.a
	if d.Network != nil || d.Subnet.IsValid() {
		if err := a.placeMachine(d); err != nil {
			return err
		}
	}
	if err := a.assign(specs, d); err != nil {
		return err
	}
	if d.Removed != "" {
		a.log.Error("this machine is no part of the datacenter any more, all its tasks end", "why", d.Removed)
	}
	a.claims.Release(d.Release)
	if d.Endpoints != nil {
		if err := a.ends.Change(d.Epoch, d.Endpoints); err != nil {
			return err
		}
	}
	if len(d.Acks) > 0 {
		a.ack(d.Acks)
	}
	return nil
}

// placeMachine takes the agent's subnet and the datacenter's network.
func (a *Agent) placeMachine(d *kernel.Down) error {
	a.mu.Lock()
	next := a.self
	a.mu.Unlock()
	if d.Subnet.IsValid() {
		next.Subnet = d.Subnet
	}
	if d.Network != nil {
		next.Network = new(*d.Network)
	}
	a.mu.Lock()
	same := next.Subnet == a.self.Subnet && a.self.Network != nil && next.Network != nil &&
		*next.Network == *a.self.Network
	a.mu.Unlock()
	if !same {
		if err := a.remember(func(r *agentRecord) { r.Subnet, r.Network = next.Subnet, next.Network }); err != nil {
			return err
		}
	}
	a.configure(a.base, &next)
	return nil
}

// configure sets the machine's network up. What does not work now is tried again with the next Sync, and attaching a
// instance says what is wrong.
func (a *Agent) configure(ctx context.Context, r *agentRecord) {
	if r.Network == nil {
		return
	}
	if err := a.network.Configure(ctx, r.Subnet, *r.Network); err != nil && ctx.Err() == nil {
		a.log.Error("network cannot be set up", "err", err)
	}
}

// assign begins, ends and forgets instances.
func (a *Agent) assign(specs map[kernel.SpecID]kernel.Spec, d *kernel.Down) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	have := make(map[kernel.InstanceID]bool, len(a.instances))
	for id := range a.instances {
		have[id] = true
	}
	do := decideFrame(have, d)
	for _, g := range do.begin { // nothing is begun of a frame that cannot be understood
		if _, ok := specs[g.Spec]; !ok {
			return fmt.Errorf("group %s: spec %s was not sent: %w", g.ID, g.Spec, errdefs.ErrNotFound)
		}
	}
	for _, g := range do.begin {
		if a.draining {
			break
		}
		a.beginLocked(a.planLocked(g, specs[g.Spec]))
		delete(a.orphans, g.ID)
	}
	for _, g := range do.stop {
		a.instances[g.ID].stop(&ending{State: kernel.Killed, Reason: kernel.ReasonKilled,
			Why: cmp.Or(g.Why, "stopped"), Task: all})
	}
	for _, g := range do.resize {
		a.instances[g.ID].resized(g.Sizes)
	}
	for _, id := range do.forget {
		a.instances[id].stop(&ending{State: kernel.Killed, Reason: kernel.ReasonKilled,
			Why: "no longer assigned to this machine", Task: all})
		a.instances[id].forgotten()
	}
	if d.Sync {
		a.synced = true
		clear(a.orphans)
		select {
		case a.recon <- struct{}{}: // what is unknown now is nobody's
		default:
		}
	}
	return nil
}

// planLocked plans an instance that has no checkpoint: anew, or from the containers that an earlier agent left.
func (a *Agent) planLocked(g kernel.Assignment, spec kernel.Spec) plan {
	found := a.orphans[g.ID]
	if len(found) == 0 {
		rec := newRecord(a.self, a.cfg.Boot, g, spec)
		if g.Goal == kernel.GoalStop { // it may have run here once, and its checkpoint be lost
			for i := range rec.Tasks {
				rec.Tasks[i].Status.Seq = uint64(time.Now().Unix())
			}
		}
		return plan{do: verbStart, rec: rec, facts: make([]fact, len(rec.Tasks))}
	}
	byID := map[string]runtime.Found{}
	for _, f := range found {
		byID[f.ID] = f
	}
	rec := adoptRecord(a.self, g, spec, found, time.Now())
	if g.Goal == kernel.GoalStop {
		rec.Ending = &ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Why: cmp.Or(g.Why, "stopped"), Task: all}
	}
	a.log.Info("containers without a checkpoint are adopted", "group", g.ID, "containers", len(found))
	return decideRecovery(rec, a.cfg.Boot, byID)
}

// ack hands acknowledgements to the instances they concern.
func (a *Agent) ack(acks []kernel.StatusAck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	byTask := map[kernel.TaskID]*instance{}
	for _, g := range a.instances {
		for _, t := range g.tasks {
			byTask[t] = g
		}
	}
	for _, k := range acks {
		if g := byTask[k.Task]; g != nil {
			g.acked(k)
		}
	}
}
