package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/store"
)

// authorities opens what a cluster signs with.
func (k *Clusters) authorities(ctx context.Context, id string) (*authorities, error) {
	row, err := keys.Get(ctx, k.cfg.Store, id)
	if err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w", id, err)
	}
	raw, err := k.cfg.Root.Open(keys.Key(id), row.Value)
	if err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w", id, err)
	}
	a := &authorities{}
	if err := json.Unmarshal(raw, a); err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w: %w", id, err, errdefs.ErrDataLoss)
	}
	return a, nil
}

// sealAuthorities is the row of what a new cluster signs with.
func (k *Clusters) sealAuthorities(id string, a *authorities) (store.Op, error) {
	raw, err := json.Marshal(a)
	if err != nil {
		return store.Op{}, err
	}
	sealed, err := k.cfg.Root.Seal(keys.Key(id), raw)
	if err != nil {
		return store.Op{}, err
	}
	return keys.Put(id, sealed)
}

// Secret gives the agent that runs a member its certificates and keys. Everybody else is refused with
// errdefs.ErrPermissionDenied, told apart from what does not exist nowhere.
func (k *Clusters) Secret(ctx context.Context, agent kernel.AgentID, ref string) (kernel.Secret, error) {
	denied := fmt.Errorf("secret %.100q is not agent %s's: %w", ref, agent, errdefs.ErrPermissionDenied)
	parts := strings.Split(ref, "/")
	if len(parts) != 3 || parts[0] != Framework {
		return kernel.Secret{}, denied
	}
	name, who := parts[1], parts[2]
	var files map[string][]byte
	err := k.do(ctx, func(ctx context.Context) error {
		k.look()
		k.mu.RLock()
		c := k.clusters[name]
		var m, plane *member
		if c != nil {
			m, plane = c.members[who], c.members[controlPlane]
		}
		ok := m != nil && m.claim != nil && m.claim.Agent == agent && !m.claim.Released && plane != nil && plane.claim != nil
		var p place
		if ok {
			p = place{plane: plane.claim.Address, node: m.claim.Address, services: c.service(1), machine: append([]string{c.machine}, k.cfg.Machine...)}
		}
		k.mu.RUnlock()
		if !ok {
			return denied
		}
		var err error
		files, err = k.leaf(ctx, &c.Row, who, p)
		return err
	})
	return kernel.Secret{Files: files}, err
}

// leaf is a member's files: those issued before, or new ones if they are stale. Run's goroutine calls it.
func (k *Clusters) leaf(ctx context.Context, c *Row, member string, p place) (map[string][]byte, error) {
	id := leafID(c.ID, member)
	now := k.cfg.Now()
	row, err := leaves.Get(ctx, k.cfg.Store, id)
	if err == nil {
		files := map[string][]byte{}
		raw, err := k.cfg.Root.Open(leaves.Key(id), row.Value)
		if err == nil {
			err = json.Unmarshal(raw, &files)
		}
		if err != nil {
			k.cfg.Log.Error("certificates cannot be opened, new ones are made", "cluster", c.Name, "member", member, "err", err)
		} else if !stale(files, member, p, now) {
			return files, nil
		}
	} else if !errdefs.IsNotFound(err) {
		return nil, err
	}
	a, err := k.authorities(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	files, err := a.files(member, p, *c.Encryption, now)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %s: %w", c.Name, member, err)
	}
	raw, err := json.Marshal(files)
	if err != nil {
		return nil, err
	}
	sealed, err := k.cfg.Root.Seal(leaves.Key(id), raw)
	if err != nil {
		return nil, err
	}
	op, err := leaves.Put(id, sealed)
	if err != nil {
		return nil, err
	}
	return files, k.commit(ctx, op)
}

func cutLeaf(id string) (cluster, member string, ok bool) { return strings.Cut(id, "/") }
