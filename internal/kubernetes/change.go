package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

// Create makes a cluster. A name that is taken is errdefs.ErrAlreadyExists, a definition that cannot be
// errdefs.ErrInvalidArgument, more than the quota allows errdefs.ErrResourceExhausted with its numbers.
func (k *Clusters) Create(ctx context.Context, d Definition) error {
	d, err := d.Complete()
	if err == nil {
		err = d.Clear(k.cfg.Pool, k.cfg.VIPs)
	}
	if err != nil {
		return err
	}
	if !isBuilt(ctx, k.cfg.Kernel, k.cfg.Tell, d.Version) {
		return fmt.Errorf("version %s: no machine has its programs yet: build them with `make kubernetes-v%s` (minutes, once) and try again: %w",
			d.Version, d.Version, errdefs.ErrFailedPrecondition)
	}
	keys, err := pki.New(d.Name, k.cfg.Now())
	if err != nil {
		return fmt.Errorf("cluster %s: %w", d.Name, err)
	}
	return k.change(ctx, d.Name, func(_ context.Context, c *scheduler.Change) error { return k.create(c, d, keys) })
}

func (k *Clusters) create(change *scheduler.Change, d Definition, a *pki.Authorities) error {
	if c := k.clusters[d.Name]; c != nil {
		if !c.Deleted.IsZero() {
			return fmt.Errorf("cluster %s is being deleted: wait until it is gone, or choose another name: %w", d.Name,
				errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("cluster %s is there already: choose another name, or look at it with `marina cluster show %s`: %w",
			d.Name, d.Name, errdefs.ErrAlreadyExists)
	}
	if len(k.clusters) >= MaxClusters {
		return fmt.Errorf("there are %d clusters, the most there may be: %w", len(k.clusters), errdefs.ErrResourceExhausted)
	}
	if why := overQuota(k.cfg.Quotas, d.Group, d.Guarantee()); why != "" {
		return fmt.Errorf("cluster %s: %s: %w", d.Name, why, errdefs.ErrResourceExhausted)
	}
	row := Row{Definition: d, ID: k.cfg.NewID(), VNI: k.clusters.freeVNI(),
		Created: k.cfg.Now().UTC().Round(time.Millisecond)}.on(k.cfg.Kernel.Agents())
	sealed, err := pki.Seal(k.cfg.Root, keys.Key(row.ID), a)
	var signs store.Op
	if err == nil {
		signs, err = keys.Put(row.ID, sealed)
	}
	if err != nil {
		return fmt.Errorf("cluster %s: %w", d.Name, err)
	}
	c := newCluster(row)
	if err := k.putRow(change, c, row); err != nil {
		return err
	}
	change.Put(signs)
	k.then(change, func() {
		c.add(k.cfg.Now(), fmt.Sprintf("is created: Kubernetes %s, %d nodes", d.Version, *d.Nodes.Count))
		k.clusters[d.Name] = c
		k.cfg.Log.Info("cluster is created", "cluster", d.Name, "version", d.Version)
	})
	return nil
}

// on completes a new cluster's row by what follows from the machines there are.
func (r Row) on(agents []kernel.AgentView) Row {
	have := func(a kernel.AgentView) bool { return a.Attributes[kernel.UserNamespaces] != "no" }
	r.SharedIDs = len(agents) > 0 && !slices.ContainsFunc(agents, have)
	if r.Privileged == nil {
		r.Privileged = new(!r.SharedIDs)
	}
	return r
}

// Change gives a cluster another definition. What is left out stays as it is; what never changes is an
// errdefs.ErrInvalidArgument if it would.
func (k *Clusters) Change(ctx context.Context, to Definition) error {
	return k.change(ctx, to.Name, func(_ context.Context, change *scheduler.Change) error {
		c, err := k.clusters.living(to.Name)
		if err != nil {
			return err
		}
		d, err := c.Change(to)
		if err != nil {
			return err
		}
		had, asks := c.Guarantee(), d.Guarantee()
		if more := asks.Sub(had); len(more.Lacking(kernel.Resources{})) > 0 {
			if why := overQuota(k.cfg.Quotas, d.Group, more); why != "" {
				return fmt.Errorf("cluster %s: %s: %w", d.Name, why, errdefs.ErrResourceExhausted)
			}
		}
		row := c.Row
		row.Definition = d
		k.then(change, func() {
			for _, m := range c.members {
				m.problem = ""
			}
			c.add(k.cfg.Now(), fmt.Sprintf("should have %d nodes of %g cpus and %g MiB", *d.Nodes.Count, d.Nodes.CPUs,
				d.Nodes.Mem))
		})
		return k.putRow(change, c, row)
	})
}

// Delete asks for a cluster's end, with all that is in it. It is gone when Get does not find it any more. Repeating
// it is harmless. A cluster that is parked may be deleted too: what the kernel has of its name is taken apart.
func (k *Clusters) Delete(ctx context.Context, name string) error {
	return k.change(ctx, name, func(_ context.Context, change *scheduler.Change) error {
		c := k.clusters[name]
		if c == nil {
			return notFound(name)
		}
		if !c.Deleted.IsZero() {
			return nil
		}
		row := c.Row
		row.Deleted = k.cfg.Now().UTC().Round(time.Millisecond)
		k.then(change, func() {
			c.parked = nil
			c.add(k.cfg.Now(), "is being deleted")
		})
		return k.putRow(change, c, row)
	})
}

// isBuilt reports whether some machine has a minor's programs, and waits a moment for one to say so.
func isBuilt(ctx context.Context, of kernel.Kernel, tell time.Duration, minor string) bool {
	late, again := time.After(tell), time.NewTicker(tell/20)
	defer again.Stop()
	for release(of.Agents(), minor) == "" {
		select {
		case <-ctx.Done():
			return false
		case <-late:
			return false
		case <-again.C:
		}
	}
	return true
}

// overQuota says which quota has no room for so much more, with its numbers; "" if all have.
func overQuota(quotas func() []kernel.QuotaView, role string, more kernel.Resources) string {
	if quotas == nil {
		return ""
	}
	for _, q := range quotas() {
		if q.Limit == nil || q.Role != "/" && role != q.Role && !strings.HasPrefix(role, q.Role+"/") {
			continue
		}
		if over := (kernel.Quota{Role: q.Role, Limit: *q.Limit}).Within(q.Used, more); len(over) > 0 {
			return fmt.Sprintf("it asks for %s; the quota of %s allows %s, of which %s is used: %s would be exceeded; ask for less, or for more quota",
				more, q.Role, *q.Limit, q.Used, strings.Join(over, " and "))
		}
	}
	return ""
}
