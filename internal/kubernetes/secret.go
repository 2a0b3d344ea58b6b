package kubernetes

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/scheduler"
)

// Secret gives the agent that runs a member its certificates and keys. Everybody else is refused with
// errdefs.ErrPermissionDenied, told apart from what does not exist nowhere.
func (k *Clusters) Secret(ctx context.Context, agent kernel.AgentID, ref string) (kernel.Secret, error) {
	denied := fmt.Errorf("secret %.100q is not agent %s's: %w", ref, agent, errdefs.ErrPermissionDenied)
	name, member, ok := core.CutSecretRef(ref)
	if !ok {
		return kernel.Secret{}, denied
	}
	var files map[string][]byte
	err := k.change(ctx, name, func(ctx context.Context, change *scheduler.Change) error {
		change.Always() // what runs needs it
		k.look()
		c := k.state.Get(name)
		if c == nil {
			return denied
		}
		at, ok := c.PlaceOf(member, agent)
		if !ok {
			return denied
		}
		if c.Lost() {
			return fmt.Errorf("cluster %s is parked, its row cannot be read: %w", name, errdefs.ErrFailedPrecondition)
		}
		s := pki.Subject{Node: member, Address: at.Address, Plane: at.Plane, Domain: core.Domain,
			Hosts: append([]string{at.Machine}, k.cfg.Machine...), Services: c.Service(1)}
		if member == core.ControlPlane {
			s.Node = ""
		}
		var err error
		files, err = k.keys.leaf(ctx, change, &c.Row, member, s)
		return err
	})
	if err != nil {
		return kernel.Secret{}, err
	}
	return kernel.Secret{Files: files}, nil
}

// Administrator makes a certificate of an administrator of the cluster of an id, and returns it with the cluster's
// own authority. It is kept nowhere.
func (k *Clusters) Administrator(ctx context.Context, id string, ttl time.Duration) (ca []byte, l pki.Leaf, err error) {
	a, err := k.keys.authorities(ctx, id)
	if err != nil {
		return nil, l, err
	}
	l, err = a.Issue(pki.Identity{Name: "marina:admin", Group: "system:masters"}, k.cfg.Now(), ttl)
	return a.CA, l, err
}
