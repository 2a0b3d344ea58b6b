package kubernetes

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/scheduler"
)

// authorities opens what a cluster signs with.
func (k *Clusters) authorities(ctx context.Context, id string) (*pki.Authorities, error) {
	row, err := keys.Get(ctx, k.cfg.Store, id)
	if err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w", id, err)
	}
	a, err := pki.Open[*pki.Authorities](k.cfg.Root, keys.Key(id), row.Value)
	if err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w", id, err)
	}
	return a, nil
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
	err := k.change(ctx, name, func(ctx context.Context, change *scheduler.Change) error {
		k.look()
		c, subject, ok := k.subject(name, who, agent)
		if !ok {
			return denied
		}
		if c.unreadable {
			return fmt.Errorf("cluster %s is parked, its row cannot be read: %w", name, errdefs.ErrFailedPrecondition)
		}
		subject.Services = c.Service(1)
		var err error
		files, err = k.leaf(ctx, change, &c.Row, who, subject)
		return err
	})
	if err != nil {
		return kernel.Secret{}, err
	}
	return kernel.Secret{Files: files}, nil
}

// subject is a member that an agent runs, as far as the kernel's reservations tell; ok is false for everybody else.
func (k *Clusters) subject(name, who string, agent kernel.AgentID) (c *cluster, s pki.Subject, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if c = k.clusters[name]; c == nil {
		return nil, s, false
	}
	m, plane := c.members[who], c.members[controlPlane]
	if m == nil || m.reservation == nil || m.reservation.Agent != agent || m.reservation.Released || plane == nil || plane.reservation == nil {
		return nil, s, false
	}
	s = pki.Subject{Node: who, Address: m.reservation.Address, Plane: plane.reservation.Address, Domain: domain,
		Hosts: append([]string{c.machine}, k.cfg.Machine...)}
	if who == controlPlane {
		s.Node = ""
	}
	return c, s, true
}

// leaf is a member's files: those issued before, or new ones, which the change keeps, if they are stale.
func (k *Clusters) leaf(ctx context.Context, change *scheduler.Change, c *Row, member string,
	s pki.Subject) (map[string][]byte, error) {
	id := leafID(c.ID, member)
	now := k.cfg.Now()
	row, err := leaves.Get(ctx, k.cfg.Store, id)
	if err == nil {
		files, err := pki.Open[map[string][]byte](k.cfg.Root, leaves.Key(id), row.Value)
		if err != nil {
			k.cfg.Log.Error("certificates cannot be opened, new ones are made", "cluster", c.Name, "member", member, "err", err)
		} else if !pki.Stale(files, s, now) {
			return files, nil
		}
	} else if !errdefs.IsNotFound(err) {
		return nil, err
	}
	a, err := k.authorities(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	files, err := a.Files(s, *c.Encryption, now)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %s: %w", c.Name, member, err)
	}
	sealed, err := pki.Seal(k.cfg.Root, leaves.Key(id), files)
	if err != nil {
		return nil, err
	}
	op, err := leaves.Put(id, sealed)
	if err != nil {
		return nil, err
	}
	change.Put(op)
	return files, nil
}

func cutLeaf(id string) (cluster, member string, ok bool) { return strings.Cut(id, "/") }
