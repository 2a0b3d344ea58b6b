package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
)

// rootKeySize is the length of the root key file in bytes (AES-256).
const rootKeySize = 32

// RootKey encrypts the private keys in the store. It is a file, mode 0600, that every master has a copy of; it is never
// written to the store. A RootKey is safe for concurrent use.
type RootKey struct {
	id   string
	aead cipher.AEAD
}

// Sealed is a secret's form in the store: envelope encryption, Data under a key of its own and that key under the
// root key, so that a new root key rewraps 32 bytes a record. Both ciphertexts start with their nonce.
type Sealed struct {
	KeyID string `json:"keyId"` // the root key's ID
	Key   []byte `json:"key"`   // the record's key, under the root key
	Data  []byte `json:"data"`  // the secret, under the record's key
}

// LoadRootKey reads the root key at path, and creates it there with fresh random bytes if there is no file. The file
// must be a regular one that only its owner can read. Of several processes that create it at once, one wins and
// all return the same key.
func LoadRootKey(path string) (*RootKey, error) {
	raw, err := readRootKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createRootKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("root key: %w", err)
		}
		raw, err = readRootKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	return NewRootKey(raw)
}

// NewRootKey returns the root key of exactly 32 bytes.
func NewRootKey(raw []byte) (*RootKey, error) {
	if len(raw) != rootKeySize {
		return nil, fmt.Errorf("root key of %d bytes, want %d: restore it from its backup: %w",
			len(raw), rootKeySize, errdefs.ErrDataLoss)
	}
	aead, err := newAEAD(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("marina root key id\x00"), raw...))
	return &RootKey{id: hex.EncodeToString(sum[:8]), aead: aead}, nil
}

// ID identifies the key without revealing it.
func (k *RootKey) ID() string { return k.id }

// Seal encrypts secret for the record of that name. Only Open with the same name decrypts it, so that a writer of the
// store cannot swap two records.
func (k *RootKey) Seal(record string, secret []byte) (Sealed, error) {
	key := make([]byte, rootKeySize)
	rand.Read(key) // never fails: crypto/rand ends the process instead
	aead, err := newAEAD(key)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{
		KeyID: k.id,
		Key:   k.aead.Seal(nil, nil, key, []byte(record)),
		Data:  aead.Seal(nil, nil, secret, []byte(record)),
	}, nil
}

// Open decrypts a secret of Seal. The error is ErrFailedPrecondition if another root key sealed it and ErrDataLoss if
// the record was changed.
func (k *RootKey) Open(record string, s Sealed) ([]byte, error) {
	if s.KeyID != k.id {
		return nil, fmt.Errorf(
			"secret %s: sealed by root key %s, this master has %s: copy the root key file of the first master: %w",
			record, s.KeyID, k.id, errdefs.ErrFailedPrecondition)
	}
	key, err := k.aead.Open(nil, nil, s.Key, []byte(record))
	if err != nil {
		return nil, fmt.Errorf("secret %s: wrapped key does not decrypt: %w", record, errdefs.ErrDataLoss)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, s.Data, []byte(record))
	if err != nil {
		return nil, fmt.Errorf("secret %s: does not decrypt: %w", record, errdefs.ErrDataLoss)
	}
	return secret, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("cipher: %w", err)
	}
	return aead, nil
}

func readRootKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %v: make it a file only its owner can read (chmod 600): %w",
			path, info.Mode(), errdefs.ErrPermissionDenied)
	}
	raw := make([]byte, rootKeySize+1)
	n, err := f.Read(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw[:n], nil
}

// createRootKey creates a whole, synced file at path or nothing: a torn key would lose the datacenter's secrets.
func createRootKey(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := durable.Create(path, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	raw := make([]byte, rootKeySize)
	rand.Read(raw)
	if _, err := f.Write(raw); err != nil {
		return err
	}
	return f.CommitNew() // never replaces another's key
}
