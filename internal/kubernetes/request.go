package kubernetes

import (
	"context"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
)

// Leading reports whether clusters are led here: what is answered is true.
func (k *Clusters) Leading() bool { return k.loop.Leading() }

// Ended is closed when this leadership's work is over.
func (k *Clusters) Ended() <-chan struct{} { return k.loop.Ended() }

// Versions tells which minors there are, and how many machines have their programs.
func (k *Clusters) Versions() []VersionView { return core.Versions(k.cfg.Kernel.Agents()) }

// Costs fills in what the members of a cluster use. What cannot be told is left out.
func (k *Clusters) Costs(ctx context.Context, v *View) {
	if k.cfg.Usage == nil {
		return
	}
	var at map[string]kernel.AgentID
	_ = k.read(v.Name, func(c *core.Cluster) { at = c.Agents() }) // or it is gone meanwhile
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
