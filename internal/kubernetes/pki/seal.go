package pki

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/identity"
)

// Seal encrypts what a row keeps: Authorities, or the files of a member. It opens as the row of this key only.
func Seal[T any](root *identity.RootKey, key string, v T) (identity.Sealed, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return identity.Sealed{}, err
	}
	return root.Seal(key, raw)
}

// Open decrypts what the row of a key keeps. What is damaged, or of another row or root key, is an error.
func Open[T any](root *identity.RootKey, key string, s identity.Sealed) (v T, err error) {
	raw, err := root.Open(key, s)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	return v, nil
}
