package kubernetes

import "github.com/marinaos/marina/internal/kernel"

// Alarms lists the clusters that are parked, by name.
func (k *Clusters) Alarms() []kernel.Alarm {
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := []kernel.Alarm{}
	for _, name := range sortedKeys(k.clusters) {
		if a := k.clusters[name].parked; a != nil {
			out = append(out, *a)
		}
	}
	return out
}

// park sets a cluster aside: what runs of it is left alone, nothing of it is changed but its end, and its name stays
// taken. A name that is none's is ignored.
func (k *Clusters) park(name, problem string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.clusters[name]
	if c == nil {
		return
	}
	now := k.cfg.Now()
	c.parked = &kernel.Alarm{Subject: "cluster " + name, Since: now, Problem: problem + ": what runs of it is left alone",
		Do: "report it with the daemon's log; the next leader tries again: `marina down` and `marina up`"}
	c.add(now, "is parked: "+problem)
	k.stewards.End(c.ID)
}

// parkRow makes a parked cluster of a row from which nothing can be decided; r is what could be read of it. k.mu is
// held.
func (k *Clusters) parkRow(name string, r Row, err error) {
	k.cfg.Log.Error("cluster is parked: its row cannot be read", "cluster", name, "err", err)
	r.Name, r.Nodes.Count, r.Encryption, r.Privileged = name, new(0), new(true), new(false)
	c := newCluster(r)
	c.unreadable = true
	if r.ID == "" {
		c.ID = k.cfg.NewID() // of nothing that exists
	}
	c.parked = &kernel.Alarm{Subject: "cluster " + name, Since: k.cfg.Now(),
		Problem: "its row cannot be read: what runs of it is left alone",
		Do: "run the version of Marina that wrote it, or restore its row (" + rows.Key(name) + ") from a backup; " +
			"or give the cluster up with all that is in it: `marina cluster delete " + name + "`"}
	c.add(k.cfg.Now(), "is parked: its row cannot be read")
	k.clusters[name] = c
}
