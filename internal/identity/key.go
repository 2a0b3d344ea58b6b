package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
)

// storedKey is the row of a key pair.
type storedKey struct {
	Public []byte `json:"public"` // a certificate or a public key, DER
	Secret Sealed `json:"secret"` // PKCS #8
}

var keys = store.NewTable[storedKey]("identity", "keys")

// KeyPair returns the key pair of that name from the store. If there is none, it stores the result of create, the
// secret half sealed. Of several masters that do so at once, one wins and all return its pair.
func KeyPair(ctx context.Context, st store.Store, root *RootKey, name string,
	create func() (public []byte, key crypto.Signer, err error)) (public []byte, key crypto.Signer, err error) {
	row, err := keys.Get(ctx, st, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		if err := createKeyPair(ctx, st, root, name, create); err != nil {
			return nil, nil, fmt.Errorf("key %s: %w", name, err)
		}
		row, err = keys.Get(ctx, st, name)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("key %s: %w", name, err)
	}
	secret, err := root.Open(keys.Key(name), row.Value.Secret)
	if err != nil {
		return nil, nil, fmt.Errorf("key %s: %w", name, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("key %s: %w: %w", name, err, errdefs.ErrDataLoss)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("key %s: a %T cannot sign: %w", name, parsed, errdefs.ErrDataLoss)
	}
	return row.Value.Public, key, nil
}

// createKeyPair stores a new pair unless there is one. Losing the race or not knowing the outcome is no error: the
// caller reads the row afterwards.
func createKeyPair(ctx context.Context, st store.Store, root *RootKey, name string,
	create func() ([]byte, crypto.Signer, error)) error {
	public, key, err := create()
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	sealed, err := root.Seal(keys.Key(name), secret)
	if err != nil {
		return err
	}
	put, err := keys.Put(name, storedKey{Public: public, Secret: sealed})
	if err != nil {
		return err
	}
	_, err = st.Commit(ctx, store.Txn{Guards: []store.Guard{keys.Absent(name)}, Ops: []store.Op{put}})
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrUnknownOutcome) {
		return nil
	}
	return err
}
