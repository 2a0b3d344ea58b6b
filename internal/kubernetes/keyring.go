package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
)

// The tables of a keyring. Signing holds a cluster's authorities and signing keys, leaves what was issued to its
// members: both sealed under the root key, both by Row.ID, so that a later cluster of the same name has none of it.
var (
	signing = store.NewTable[identity.Sealed]("kubernetes", "keys")
	leaves  = store.NewTable[identity.Sealed]("kubernetes", "leaves") // by ID/member
)

func leafID(cluster, member string) string { return cluster + "/" + member }

func cutLeaf(id string) (cluster, member string, ok bool) { return strings.Cut(id, "/") }

// keyring keeps what clusters sign with, and what was signed for their members.
type keyring struct {
	store store.Store
	root  *identity.RootKey
	now   func() time.Time
	log   *slog.Logger
}

// put adds to a change what a new cluster signs with.
func (k *keyring) put(change *scheduler.Change, id string, a *pki.Authorities) error {
	sealed, err := pki.Seal(k.root, signing.Key(id), a)
	if err != nil {
		return err
	}
	op, err := signing.Put(id, sealed)
	if err == nil {
		change.Put(op)
	}
	return err
}

// authorities opens what a cluster signs with.
func (k *keyring) authorities(ctx context.Context, id string) (*pki.Authorities, error) {
	row, err := signing.Get(ctx, k.store, id)
	if err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w", id, err)
	}
	a, err := pki.Open[*pki.Authorities](k.root, signing.Key(id), row.Value)
	if err != nil {
		return nil, fmt.Errorf("keys of cluster %s: %w", id, err)
	}
	return a, nil
}

// leaf is a member's files: those issued before, or new ones, which the change keeps, if they are stale.
func (k *keyring) leaf(ctx context.Context, change *scheduler.Change, r *core.Row, member string,
	s pki.Subject) (map[string][]byte, error) {
	id := leafID(r.ID, member)
	now := k.now()
	row, err := leaves.Get(ctx, k.store, id)
	if err == nil {
		files, err := pki.Open[map[string][]byte](k.root, leaves.Key(id), row.Value)
		if err != nil {
			k.log.Error("certificates cannot be opened, new ones are made", "cluster", r.Name, "member", member, "err", err)
		} else if !pki.Stale(files, s, now) {
			return files, nil
		}
	} else if !errdefs.IsNotFound(err) {
		return nil, err
	}
	a, err := k.authorities(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	files, err := a.Files(s, *r.Encryption, now)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %s: %w", r.Name, member, err)
	}
	sealed, err := pki.Seal(k.root, leaves.Key(id), files)
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

// forget adds to a change that nothing of a cluster's is kept.
func (k *keyring) forget(ctx context.Context, change *scheduler.Change, id string) error {
	sealed, err := leaves.Read(ctx, k.store)
	if err != nil {
		return err
	}
	change.Put(signing.Delete(id))
	for _, r := range sealed.List {
		if of, _, ok := cutLeaf(r.ID); ok && of == id {
			change.Put(leaves.Delete(r.ID))
		}
	}
	return nil
}
