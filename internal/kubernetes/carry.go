package kubernetes

import (
	"context"
	"fmt"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/scheduler"
)

// carryOut makes a decision real. An error ends this leadership's work; everything else that goes wrong is the
// cluster's trouble.
func (k *Clusters) carryOut(ctx context.Context, c *cluster, d Decision) error {
	k.stale = k.stale || len(d.Withdraw)+len(d.Stop)+len(d.Launch)+len(d.Release) > 0
	for _, m := range d.Withdraw {
		if _, err := k.cfg.Kernel.Withdraw(ctx, Framework, reservationName(c.Name, m), nil); err != nil {
			return over{fmt.Errorf("cluster %s: withdraw %s: %w", c.Name, m, err)}
		}
	}
	for _, why := range sortedKeys(d.Stop) {
		if err := k.cfg.Kernel.Stop(ctx, Framework, d.Stop[why], why); err != nil {
			return over{fmt.Errorf("cluster %s: stop: %w", c.Name, err)}
		}
		for _, g := range d.Stop[why] {
			k.event(c, fmt.Sprintf("%s is stopped: %s", c.memberNamed(g), why))
		}
	}
	for _, m := range d.Launch {
		if err := k.launch(ctx, c, m); err != nil {
			return err
		}
	}
	for g, sizes := range d.Resize {
		if err := k.resize(ctx, c, g, sizes); err != nil {
			return err
		}
	}
	for _, m := range d.Release {
		err := asked(k.cfg.Kernel.Release(ctx, Framework, []string{reservationName(c.Name, m)}))
		if err := k.settled(c, m, releaseStep, err); err != nil {
			return err
		}
	}
	for _, m := range d.Load {
		k.supply(c, c.members[m])
	}
	if d.Gone {
		return k.settled(c, "", buryStep, k.bury(ctx, c))
	}
	return nil
}

func (c *cluster) memberNamed(g kernel.InstanceID) string {
	for name, m := range c.members {
		if m.instance != nil && m.instance.ID == g {
			return name
		}
	}
	return string(g)
}

// launch starts a member. What cannot be asked for, or the kernel refuses, is the cluster's problem; it is tried
// again with growing pauses.
func (k *Clusters) launch(ctx context.Context, c *cluster, name string) error {
	size := c.NodeSize()
	if name == controlPlane {
		size = c.PlaneSize()
	}
	id := kernel.InstanceID(groupPrefix(c.Name, name) + k.cfg.NewID())
	var result kernel.LaunchResult
	spec, err := c.memberSpec(name)
	if err == nil {
		r := kernel.LaunchRequest{Key: reservationName(c.Name, name), Spec: spec, Instances: []kernel.InstanceID{id}}
		result, err = k.cfg.Kernel.Launch(ctx, r)
		err = asked(err)
	}
	if ends(err) {
		return fmt.Errorf("cluster %s: launch %s: %w", c.Name, name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m, now := c.members[name], k.cfg.Now()
	switch {
	case err != nil:
		if m.problem != err.Error() {
			c.add(now, fmt.Sprintf("%s cannot start: %.*s", name, maxWhy, err.Error()))
		}
		m.problem = err.Error()
		m.failures++
		m.ended = now
	case result.Waiting > 0:
		m.problem = ""
		c.add(now, fmt.Sprintf("%s waits: %s", name, result.Refusal))
	default:
		m.asked, m.has, m.problem, m.taken = id, &size, "", false
		c.add(now, fmt.Sprintf("%s starts on %s", name, result.Placed[0].Hostname))
	}
	return nil
}

func (k *Clusters) resize(ctx context.Context, c *cluster, g kernel.InstanceID, sizes []kernel.Size) error {
	err := asked(k.cfg.Kernel.Resize(ctx, Framework, g, sizes))
	if ends(err) {
		return fmt.Errorf("cluster %s: resize: %w", c.Name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m := c.members[c.memberNamed(g)]
	if m == nil {
		return nil
	}
	if err != nil {
		if m.problem != err.Error() {
			c.add(k.cfg.Now(), fmt.Sprintf("%s keeps its size: %v", m.name, err))
		}
		m.problem = err.Error()
		return nil
	}
	m.has = &sizes[0]
	has := kernel.Resources{MilliCPU: sizes[0].Guarantee.MilliCPU, Mem: sizes[0].Guarantee.Mem}
	c.add(k.cfg.Now(), fmt.Sprintf("%s has %s now", m.name, has))
	return nil
}

// bury removes what is left of a deleted cluster: its rows and loaded images.
func (k *Clusters) bury(ctx context.Context, c *cluster) error {
	if _, err := k.cfg.Kernel.Expose(ctx, Framework, owner(c.Name, "nodes"), nil); err != nil {
		return asked(err)
	}
	if err := k.archives.RemoveAll(c.ID); err != nil { // the next leadership removes what is nobody's
		k.cfg.Log.Error("images of a deleted cluster not removed", "cluster", c.Name, "err", err)
	}
	sealed, err := leaves.Read(ctx, k.cfg.Store)
	if err != nil {
		return err
	}
	change := &scheduler.Change{}
	change.Put(rows.Delete(c.Name))
	change.Put(keys.Delete(c.ID))
	for _, r := range sealed.List {
		if id, _, ok := cutLeaf(r.ID); ok && id == c.ID {
			change.Put(leaves.Delete(r.ID))
		}
	}
	k.then(change, func() { delete(k.clusters, c.Name) })
	if err := k.commit(ctx, change); err != nil {
		return err
	}
	k.stewards.End(c.ID)
	k.cfg.Log.Info("cluster is gone", "cluster", c.Name)
	return nil
}

func (k *Clusters) event(c *cluster, message string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.add(k.cfg.Now(), message)
}
