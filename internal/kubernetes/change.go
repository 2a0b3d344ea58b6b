package kubernetes

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/scheduler"
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
		return fmt.Errorf("version %s: no machine has its programs yet: build them with `make kubernetes-v%s` "+
			"(minutes, once) and try again: %w", d.Version, d.Version, errdefs.ErrFailedPrecondition)
	}
	a, err := pki.New(d.Name, k.cfg.Now())
	if err != nil {
		return fmt.Errorf("cluster %s: %w", d.Name, err)
	}
	return k.change(ctx, d.Name, func(_ context.Context, c *scheduler.Change) error { return k.create(c, d, a) })
}

func (k *Clusters) create(change *scheduler.Change, d Definition, a *pki.Authorities) error {
	if err := k.state.Admit(d.Name); err != nil {
		return err
	}
	if why := overQuota(k.cfg.Quotas, d.Group, d.Guarantee()); why != "" {
		return fmt.Errorf("cluster %s: %s: %w", d.Name, why, errdefs.ErrResourceExhausted)
	}
	row := core.Row{Definition: d, ID: k.cfg.NewID(), VNI: k.state.FreeVNI(),
		Created: k.cfg.Now().UTC().Round(time.Millisecond)}.On(k.cfg.Kernel.Agents())
	c := core.New(row, nil)
	if err := k.putRow(change, c, row); err != nil {
		return err
	}
	if err := k.keys.put(change, row.ID, a); err != nil {
		return fmt.Errorf("cluster %s: %w", d.Name, err)
	}
	k.then(change, func() {
		c.AddEvent(k.cfg.Now(), "is created: Kubernetes %s, %d nodes", d.Version, *d.Nodes.Count)
		k.state.Put(c)
		k.cfg.Log.Info("cluster is created", "cluster", d.Name, "version", d.Version)
	})
	return nil
}

// Change gives a cluster another definition. What is left out stays as it is; what never changes is an
// errdefs.ErrInvalidArgument if it would.
func (k *Clusters) Change(ctx context.Context, to Definition) error {
	return k.change(ctx, to.Name, func(_ context.Context, change *scheduler.Change) error {
		c, err := k.state.Living(to.Name)
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
		if err := k.putRow(change, c, row); err != nil {
			return err
		}
		k.then(change, func() { c.Changed(k.cfg.Now()) })
		return nil
	})
}

// Delete asks for a cluster's end, with all that is in it. It is gone when Get does not find it any more. Repeating
// it is harmless. A cluster that is parked may be deleted too: what the kernel has of its name is taken apart.
func (k *Clusters) Delete(ctx context.Context, name string) error {
	return k.change(ctx, name, func(_ context.Context, change *scheduler.Change) error {
		c, err := k.state.Find(name)
		if err != nil || !c.Deleted.IsZero() {
			return err
		}
		row := c.Row
		change.Always()
		row.Deleted = k.cfg.Now().UTC().Round(time.Millisecond)
		if err := k.putRow(change, c, row); err != nil {
			return err
		}
		k.then(change, func() { c.End(k.cfg.Now()) })
		return nil
	})
}

// isBuilt reports whether some machine has a minor's programs, and waits a moment for one to say so.
func isBuilt(ctx context.Context, of kernel.Kernel, tell time.Duration, minor string) bool {
	late, again := time.After(tell), time.NewTicker(tell/20)
	defer again.Stop()
	for core.Release(of.Agents(), minor) == "" {
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
			return fmt.Sprintf("it asks for %s; the quota of %s allows %s, of which %s is used: %s would be exceeded; "+
				"ask for less, or for more quota", more, q.Role, *q.Limit, q.Used, strings.Join(over, " and "))
		}
	}
	return ""
}
