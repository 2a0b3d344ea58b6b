package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// do has Run's goroutine carry out a change. It returns once the change is durable, with its error if it was refused, or an
// errdefs.ErrUnavailable when this process does not lead; then the outcome may be unknown.
func (k *Clusters) do(ctx context.Context, plan func(context.Context) error) error {
	r := request{plan: plan, done: make(chan error, 1)}
	select {
	case k.requests <- r:
	case <-k.ended:
		return errNotLeading
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return <-r.done
}

var errNotLeading = fmt.Errorf("this master does not lead, ask again: %w", errdefs.ErrUnavailable)

// firstVNI begins the numbers of clusters' own networks.
const firstVNI = 4096

// Create makes a cluster. A name that is taken is errdefs.ErrAlreadyExists, a definition that cannot be errdefs.ErrInvalidArgument,
// more than the quota allows errdefs.ErrResourceExhausted with its numbers.
func (k *Clusters) Create(ctx context.Context, d Definition) error {
	d, err := d.Complete()
	if err == nil {
		err = d.clear(k.cfg.Pool, k.cfg.VIPs)
	}
	if err != nil {
		return err
	}
	if !k.isBuilt(ctx, d.Version) {
		return fmt.Errorf("version %s: no machine has its programs yet: build them with `make kubernetes-v%s` (minutes, once) and try again: %w",
			d.Version, d.Version, errdefs.ErrFailedPrecondition)
	}
	keys, err := newAuthorities(d.Name, k.cfg.Now())
	if err != nil {
		return fmt.Errorf("cluster %s: %w", d.Name, err)
	}
	return k.do(ctx, func(ctx context.Context) error { return k.create(ctx, d, keys) })
}

// isBuilt reports whether some machine has a minor's programs, and waits a moment for one to say so.
func (k *Clusters) isBuilt(ctx context.Context, minor string) bool {
	late, again := time.After(k.cfg.Tell), time.NewTicker(k.cfg.Tell/20)
	defer again.Stop()
	for release(k.cfg.Kernel.Agents(), minor) == "" {
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

func (k *Clusters) create(ctx context.Context, d Definition, a *authorities) error {
	if c := k.clusters[d.Name]; c != nil {
		if !c.Deleted.IsZero() {
			return fmt.Errorf("cluster %s is being deleted: wait until it is gone, or choose another name: %w", d.Name, errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("cluster %s is there already: choose another name, or look at it with `marina cluster show %s`: %w", d.Name, d.Name, errdefs.ErrAlreadyExists)
	}
	if len(k.clusters) >= MaxClusters {
		return fmt.Errorf("there are %d clusters, the most there may be: %w", len(k.clusters), errdefs.ErrResourceExhausted)
	}
	if why := k.overQuota(d.Group, d.Guarantee()); why != "" {
		return fmt.Errorf("cluster %s: %s: %w", d.Name, why, errdefs.ErrResourceExhausted)
	}
	row := Row{Definition: d, ID: k.cfg.NewID(), VNI: k.freeVNI(), Created: k.cfg.Now().UTC().Round(time.Millisecond)}.on(k.cfg.Kernel.Agents())
	sealed, err := k.sealAuthorities(row.ID, a)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", d.Name, err)
	}
	op, err := rows.Put(d.Name, row)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", d.Name, err)
	}
	if err := k.commit(ctx, sealed, op); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c := newCluster(row)
	c.add(k.cfg.Now(), fmt.Sprintf("is created: Kubernetes %s, %d nodes", d.Version, *d.Nodes.Count))
	k.clusters[d.Name] = c
	k.cfg.Log.Info("cluster is created", "cluster", d.Name, "version", d.Version)
	return nil
}

// on completes a new cluster's row by what follows from the machines there are.
func (r Row) on(agents []kernel.AgentView) Row {
	r.SharedIDs = len(agents) > 0 && !slices.ContainsFunc(agents, func(a kernel.AgentView) bool { return a.Attributes[kernel.UserNamespaces] != "no" })
	if r.Privileged == nil {
		r.Privileged = new(!r.SharedIDs)
	}
	return r
}

// freeVNI is the lowest number that no cluster's network has.
func (k *Clusters) freeVNI() int {
	taken := map[int]bool{}
	for _, c := range k.clusters {
		taken[c.VNI] = true
	}
	n := firstVNI
	for taken[n] {
		n++
	}
	return n
}

// overQuota says which quota has no room for so much more, with its numbers; "" if all have.
func (k *Clusters) overQuota(role string, more kernel.Resources) string {
	if k.cfg.Quotas == nil {
		return ""
	}
	for _, q := range k.cfg.Quotas() {
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

// Change gives a cluster another definition. What is left out stays as it is; what never changes is an
// errdefs.ErrInvalidArgument if it would.
func (k *Clusters) Change(ctx context.Context, to Definition) error {
	return k.do(ctx, func(ctx context.Context) error {
		c, err := k.living(to.Name)
		if err != nil {
			return err
		}
		d, err := c.change(to)
		if err != nil {
			return err
		}
		had, asks := c.Guarantee(), d.Guarantee()
		if more := asks.Sub(had); len(more.Lacking(kernel.Resources{})) > 0 {
			if why := k.overQuota(d.Group, more); why != "" {
				return fmt.Errorf("cluster %s: %s: %w", d.Name, why, errdefs.ErrResourceExhausted)
			}
		}
		row := c.Row
		row.Definition = d
		if err := k.save(ctx, c, row); err != nil {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, m := range c.members {
			m.problem = ""
		}
		c.add(k.cfg.Now(), fmt.Sprintf("should have %d nodes of %g cpus and %g MiB", *d.Nodes.Count, d.Nodes.CPUs, d.Nodes.Mem))
		return nil
	})
}

// Delete asks for a cluster's end, with all that is in it. It is gone when Get does not find it any more. Repeating it is harmless.
func (k *Clusters) Delete(ctx context.Context, name string) error {
	return k.do(ctx, func(ctx context.Context) error {
		c := k.clusters[name]
		if c == nil {
			return notFound(name)
		}
		if !c.Deleted.IsZero() {
			return nil
		}
		row := c.Row
		row.Deleted = k.cfg.Now().UTC().Round(time.Millisecond)
		if err := k.save(ctx, c, row); err != nil {
			return err
		}
		k.event(c, "is being deleted")
		return nil
	})
}

func notFound(name string) error {
	return fmt.Errorf("cluster %.60q does not exist: `marina cluster list` tells those that do: %w", name, errdefs.ErrNotFound)
}

// living finds a cluster that is not being deleted. Run's goroutine calls it, or holds mu.
func (k *Clusters) living(name string) (*cluster, error) {
	c := k.clusters[name]
	if c == nil {
		return nil, notFound(name)
	}
	if !c.Deleted.IsZero() {
		return nil, fmt.Errorf("cluster %s is being deleted: %w", name, errdefs.ErrFailedPrecondition)
	}
	return c, nil
}

// List shows all clusters by name.
func (k *Clusters) List() []View {
	agents := k.cfg.Kernel.Agents()
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := []View{}
	for _, name := range sortedKeys(k.clusters) {
		c := k.clusters[name]
		out = append(out, c.view(release(agents, c.Version)))
	}
	return out
}

// Get shows one cluster; changed is closed when there may be something else to see.
func (k *Clusters) Get(name string) (v View, changed <-chan struct{}, err error) {
	agents := k.cfg.Kernel.Agents()
	k.mu.RLock()
	defer k.mu.RUnlock()
	c := k.clusters[name]
	if c == nil {
		return View{}, nil, notFound(name)
	}
	return c.view(release(agents, c.Version)), k.moved, nil
}

// Events lists what happened to a cluster, oldest first.
func (k *Clusters) Events(name string) ([]Event, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c := k.clusters[name]
	if c == nil {
		return nil, notFound(name)
	}
	return append([]Event{}, c.events...), nil
}

// Costs fills in what the members of a cluster use. What cannot be told is left out.
func (k *Clusters) Costs(ctx context.Context, v *View) {
	if k.cfg.Usage == nil {
		return
	}
	k.mu.RLock()
	c := k.clusters[v.Name]
	at := map[string]kernel.AgentID{}
	if c != nil {
		for name, m := range c.members {
			if m.instance != nil {
				at[name] = m.instance.Agent
			}
		}
	}
	k.mu.RUnlock()
	total := Cost{}
	for n := range v.Members {
		m := &v.Members[n]
		agent, ok := at[m.Name]
		if !ok || m.Task == "" {
			continue
		}
		cost, err := k.cfg.Usage(ctx, agent, kernel.TaskID(m.Task))
		if err != nil {
			k.cfg.Log.Debug("usage", "task", m.Task, "err", err)
			continue
		}
		m.Cost = &cost
		total.Private, total.Shared, total.CPU = total.Private+cost.Private, total.Shared+cost.Shared, total.CPU+cost.CPU
		v.Cost = &total
	}
}

// nodesRunning lists the nodes of a cluster whose process runs, with where.
func (k *Clusters) nodesRunning(name string) (map[kernel.TaskID]kernel.AgentID, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c, err := k.living(name)
	if err != nil {
		return nil, err
	}
	out := map[kernel.TaskID]kernel.AgentID{}
	for _, m := range c.nodes() {
		if _, ok := m.running(); ok && slices.Contains([]string{"ready", "down"}, first(c.memberState(m))) {
			out[m.instance.Statuses[0].Task] = m.instance.Agent
		}
	}
	return out, nil
}

func first(a, _ string) string { return a }
