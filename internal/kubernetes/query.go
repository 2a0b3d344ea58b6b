package kubernetes

import (
	"context"
	"sync"

	"github.com/marinaos/marina/internal/kernel"
)

// List shows all clusters by name.
func (k *Clusters) List() []View {
	agents := sync.OnceValue(k.cfg.Kernel.Agents)
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := []View{}
	for _, name := range sortedKeys(k.clusters) {
		out = append(out, k.clusters[name].view(agents))
	}
	return out
}

// Get shows one cluster; changed is closed when there may be something else to see.
func (k *Clusters) Get(name string) (v View, changed <-chan struct{}, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c := k.clusters[name]
	if c == nil {
		return View{}, nil, notFound(name)
	}
	return c.view(k.cfg.Kernel.Agents), k.moved, nil
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

// runningNode is a node whose process runs, and where.
type runningNode struct {
	member string
	group  kernel.InstanceID
	task   kernel.TaskID
	agent  kernel.AgentID
}

// nodesRunning lists the nodes of a cluster that have joined it and whose process runs.
func (k *Clusters) nodesRunning(name string) ([]runningNode, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c, err := k.clusters.living(name)
	if err != nil {
		return nil, err
	}
	var out []runningNode
	for _, m := range c.nodes() {
		state, _ := c.memberState(m)
		if _, ok := m.running(); ok && (state == "ready" || state == "down") {
			out = append(out, runningNode{m.name, m.instance.ID, m.instance.Statuses[0].Task, m.instance.Agent})
		}
	}
	return out, nil
}
