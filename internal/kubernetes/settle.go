package kubernetes

import (
	"context"
	"maps"
	"time"

	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/scheduler"
)

// settle decides and carries out what follows for the clusters that were touched or whose time has come, and returns
// when to look again.
func (k *Clusters) settle(ctx context.Context) (time.Time, error) {
	if k.state.Due(k.cfg.Now()) {
		k.stale = true
	}
	if k.stale {
		k.look()
	}
	names := k.state.Take()
	for _, name := range names {
		c := k.state.Get(name)
		if c == nil || c.Parked() != nil {
			continue
		}
		var wake time.Time
		err := k.fenced(name, func() (err error) { wake, err = k.settleOne(ctx, c); return err })
		if ends(err) {
			return time.Time{}, err
		}
		if err == nil {
			k.state.At(name, wake)
		}
	}
	if len(names) > 0 {
		k.announce()
	}
	return k.state.Next(), nil
}

// settleOne brings one cluster as far as it comes now, and returns when to look at it again; zero: when something
// changes.
func (k *Clusters) settleOne(ctx context.Context, c *core.Cluster) (time.Time, error) {
	var d core.Decision
	k.write(func() { d = k.state.Decide(c, k.cfg.Now()) })
	k.stale = k.stale || len(d.Withdraw)+len(d.Stop)+len(d.Launch)+len(d.Release) > 0
	if err := k.actuator.carryOut(ctx, c, d); err != nil {
		return time.Time{}, err
	}
	for _, member := range d.Load {
		k.supply(c, member)
	}
	if d.Gone {
		err := k.actuator.settle(c, "", core.BuryStep, k.bury(ctx, c))
		return c.Again("", core.BuryStep), err
	}
	if d.Exposure != nil {
		if err := k.expose(ctx, c, d.Exposure); err != nil {
			return time.Time{}, err
		}
		if at := c.Again("", core.ExposeStep); !at.IsZero() {
			d.Later(at)
		}
	}
	k.stewards.Attend(c.Name, c.ID, c.Plane(), c.Desired())
	return d.Wake, k.note(ctx, c)
}

// expose carries out what was decided of load balancers: what the row does not say is not exposed.
func (k *Clusters) expose(ctx context.Context, c *core.Cluster, x *core.Exposure) error {
	if x.Save {
		row := c.Row
		row.Published = x.Published
		if err := k.save(ctx, c, row); err != nil || !maps.Equal(x.Published, c.Published) {
			return err
		}
	}
	if !x.Expose {
		return nil
	}
	return k.actuator.expose(ctx, c, x)
}

// supply has a node be given the images that it lacks.
func (k *Clusters) supply(c *core.Cluster, member string) {
	var node core.Node
	var files []string
	k.write(func() { node, files = c.BeginSupply(member) })
	k.supplier.Give(c.Name, c.ID, node, files)
}

// note tells a change of where a cluster stands, and writes down when it is ready for the first time.
func (k *Clusters) note(ctx context.Context, c *core.Cluster) error {
	now, state, changed := k.cfg.Now(), State(""), false
	k.write(func() { state, changed = c.Stand(now) })
	if changed {
		k.cfg.Log.Info("cluster changed", "cluster", c.Name, "state", string(state))
	}
	row := c.Row
	if state != Ready || !row.ReadyAt.IsZero() || now.Before(c.Again("", core.RowStep)) {
		return nil
	}
	row.ReadyAt = now.UTC().Round(time.Millisecond)
	return k.save(ctx, c, row)
}

// bury removes what is left of a deleted cluster: its rows and loaded images.
func (k *Clusters) bury(ctx context.Context, c *core.Cluster) error {
	if _, err := k.cfg.Kernel.Expose(ctx, Framework, core.NodesOwner(c.Name), nil); err != nil {
		return asked(err)
	}
	if err := k.archives.RemoveAll(c.ID); err != nil { // the next leadership removes what is nobody's
		k.cfg.Log.Error("images of a deleted cluster not removed", "cluster", c.Name, "err", err)
	}
	change := &scheduler.Change{}
	change.Put(rows.Delete(c.Name))
	if err := k.keys.forget(ctx, change, c.ID); err != nil {
		return err
	}
	k.then(change, func() { k.state.Drop(c.Name) })
	if err := k.commit(ctx, change); err != nil {
		return err
	}
	k.stewards.End(c.ID)
	k.cfg.Log.Info("cluster is gone", "cluster", c.Name)
	return nil
}
