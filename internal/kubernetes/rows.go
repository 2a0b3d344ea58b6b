package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

// rows keeps clusters by name. Their keys are in the keyring, by Row.ID.
var rows = store.NewTable[core.Row]("kubernetes", "clusters")

// restore loads the rows. One that cannot be read is parked.
func (k *Clusters) restore(ctx context.Context) error {
	all, err := rows.Read(ctx, k.cfg.Store)
	if err != nil {
		return err
	}
	lost := map[string]core.Row{} // by name: as much as could be read
	ids := map[string]bool{}
	for name, r := range all.All() {
		ids[r.ID] = true
		if err := r.Usable(name); err != nil {
			k.cfg.Log.Error("cluster is parked: its row cannot be used", "cluster", name, "err", err)
			lost[name] = r
		}
	}
	for _, b := range all.Broken {
		name, ok := rows.ID(b.Item.Key)
		if !ok {
			return b
		}
		k.cfg.Log.Error("cluster is parked: its row cannot be read", "cluster", name, "err", b)
		var r core.Row
		_ = json.Unmarshal(b.Item.Value, &r) // as far as it can be
		ids[r.ID], lost[name] = true, r
	}
	known := func(id string) bool { return ids[id] }
	if ids[""] {
		known = nil // whose the directories are, nobody can tell
	}
	if err := k.archives.Open(known); err != nil { // clusters are led all the same: new nodes may lack images
		k.cfg.Log.Error("image archives cannot be read", "err", err)
	}
	k.write(func() {
		for name, r := range all.All() {
			if _, is := lost[name]; !is {
				k.state.Put(core.New(r, k.archives.List(r.ID)))
			}
		}
		for name, r := range lost {
			r.ID = cmp.Or(r.ID, k.cfg.NewID()) // of nothing that exists
			k.state.Put(core.NewLost(name, r, rows.Key(name), k.archives.List(r.ID), k.cfg.Now()))
		}
	})
	return nil
}

// commit makes a change durable that nobody asked for. The owner goroutine calls it. An error that does not end the
// leadership is the store's refusal of what was written: nothing happened.
func (k *Clusters) commit(ctx context.Context, c *scheduler.Change) error {
	err := k.loop.Commit(ctx, c)
	if err != nil && !errdefs.IsInvalidArgument(err) {
		return over{err}
	}
	return err
}

// putRow adds a cluster's row to a change, and takes it over once it is durable.
func (k *Clusters) putRow(change *scheduler.Change, c *core.Cluster, row core.Row) error {
	op, err := rows.Put(row.Name, row)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", row.Name, err)
	}
	change.Put(op)
	k.then(change, func() { c.Row = row })
	return nil
}

// save makes a cluster's row durable when nobody asked for that: a refusal is the cluster's trouble.
func (k *Clusters) save(ctx context.Context, c *core.Cluster, row core.Row) error {
	change := &scheduler.Change{}
	err := k.putRow(change, c, row)
	if err == nil {
		err = k.commit(ctx, change)
	}
	return k.actuator.settle(c, "", core.RowStep, err)
}
