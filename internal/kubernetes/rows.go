package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

// Row is a cluster as the store has it.
type Row struct {
	Definition
	ID      string    `json:"id"`  // drawn when it was created
	VNI     int       `json:"vni"` // of its nodes' own network, unique among clusters
	Created time.Time `json:"created"`
	ReadyAt time.Time `json:"readyAt,omitzero"`
	Deleted time.Time `json:"deleted,omitzero"` // somebody asked for its end then
	// Published is the machines' ports of its load balancers, by namespace/name/protocol/port.
	Published map[string]uint16 `json:"published,omitempty"`
	Images    []string          `json:"images,omitempty"` // loaded into it by name
	// SharedIDs: its nodes have no user namespaces and run with their machines' own user ids, since there was no machine
	// with user namespaces when it was created.
	SharedIDs bool `json:"sharedIDs,omitempty"`
}

// The tables. Keys are a cluster's authorities and signing keys, leaves what was issued to its members: both sealed
// under the root key, both by Row.ID, so that a later cluster of the same name has none of it.
var (
	rows   = store.NewTable[Row]("kubernetes", "clusters") // by name
	keys   = store.NewTable[identity.Sealed]("kubernetes", "keys")
	leaves = store.NewTable[identity.Sealed]("kubernetes", "leaves") // by ID/member
)

func leafID(cluster, member string) string { return cluster + "/" + member }

// restore loads the rows. One that cannot be read is parked.
func (k *Clusters) restore(ctx context.Context) error {
	all, err := rows.Read(ctx, k.cfg.Store)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := map[string]bool{}
	for name, r := range all.All() {
		if err := r.usable(name); err != nil {
			k.parkRow(name, r, err)
		} else {
			k.clusters[name] = newCluster(r)
		}
		ids[r.ID] = true
	}
	for _, b := range all.Broken {
		name, ok := rows.ID(b.Item.Key)
		if !ok {
			return b
		}
		var r Row
		_ = json.Unmarshal(b.Item.Value, &r) // as far as it can be
		k.parkRow(name, r, b)
		ids[r.ID] = true
	}
	known := func(id string) bool { return ids[id] }
	if ids[""] {
		known = nil // whose the directories are, nobody can tell
	}
	if err := k.archives.Open(known); err != nil { // clusters are led all the same: new nodes may lack images
		k.cfg.Log.Error("image archives cannot be read", "err", err)
	}
	for _, c := range k.clusters {
		c.archives = k.archives.List(c.ID)
	}
	return nil
}

// usable reports why nothing can be decided from a row.
func (r *Row) usable(name string) error {
	switch {
	case r.Name != name:
		return fmt.Errorf("it is of %.60q: %w", r.Name, errdefs.ErrDataLoss)
	case r.ID == "" || r.Nodes.Count == nil || r.Encryption == nil || r.Privileged == nil:
		return fmt.Errorf("a part of it is missing: %w", errdefs.ErrDataLoss)
	case !r.Deleted.IsZero():
		return nil
	}
	for _, cidr := range []string{r.PodCIDR, r.ServiceCIDR} {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			return fmt.Errorf("range %.40q: %w", cidr, errdefs.ErrDataLoss)
		}
	}
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
func (k *Clusters) putRow(change *scheduler.Change, c *cluster, row Row) error {
	op, err := rows.Put(row.Name, row)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", row.Name, err)
	}
	change.Put(op)
	k.then(change, func() { c.Row = row })
	return nil
}

// then has f take a change in, under the lock, once it is durable.
func (k *Clusters) then(change *scheduler.Change, f func()) {
	change.Then(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		f()
	})
}
