package ca

import (
	"context"
	"crypto"
	"fmt"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/store"
)

// Open returns the datacenter's CA from the store, and creates it there at the first start. Every master that has the
// root key may open it at once.
func Open(ctx context.Context, st store.Store, root *identity.RootKey, datacenter string) (*Authority, error) {
	der, key, err := identity.KeyPair(ctx, st, root, "ca", func() ([]byte, crypto.Signer, error) {
		a, err := newAuthority(datacenter)
		if err != nil {
			return nil, nil, err
		}
		return a.cert.Raw, a.key, nil
	})
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	return loadAuthority(datacenter, der, key)
}
