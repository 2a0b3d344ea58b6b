package kubernetes

import (
	"context"
	"maps"
	"reflect"

	"github.com/marinaos/marina/internal/kernel"
)

// balance exposes what the cluster's load balancers ask for, when that is otherwise than the kernel was asked for last.
func (k *Clusters) balance(ctx context.Context, c *cluster, d *Decision) error {
	if c.told == nil || !c.Deleted.IsZero() {
		return nil
	}
	now := k.cfg.Now()
	published, refused, want := k.ports(c)
	if !maps.Equal(published, c.Published) {
		if !c.may("", rowStep, d, now) {
			return nil
		}
		row := c.Row
		row.Published = published
		if err := k.save(ctx, c, row); err != nil || !maps.Equal(published, c.Published) {
			return err
		}
	}
	same := c.offered != nil && reflect.DeepEqual(*c.offered, want)
	if same && c.again("", exposeStep).IsZero() || same && !c.may("", exposeStep, d, now) {
		return nil
	}
	exposed, err := k.cfg.Kernel.Expose(ctx, Framework, owner(c.Name, "nodes"), want)
	if err := k.settled(c, "", exposeStep, asked(err)); err != nil {
		return err
	}
	if err != nil {
		for key := range published {
			refused[key] = err.Error()
		}
		d.later(c.again("", exposeStep))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.offered, c.refused = &want, refused; err == nil {
		c.exposed = exposed
	}
	return nil
}

// ports says which of the machines' ports a cluster's load balancers have, for which there is none, and what its
// nodes are to expose.
func (k *Clusters) ports(c *cluster) (published map[string]uint16, refused map[string]string, want []kernel.Port) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	published, refused = c.publish(k.clusters.published, k.cfg.Publish)
	return published, refused, c.ports(published)
}
