package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/crypto/argon2"
)

// Cost of a password hash: argon2id with OWASP's least recommended parameters, about 30 ms of one core.
const (
	hashTime    = 2
	hashMemory  = 19 << 10 // KiB
	hashThreads = 1
	hashBytes   = 32
	saltBytes   = 16

	minPassword = 5    // characters, as DC/OS
	maxPassword = 1024 // bytes

	// hashSlots limits the hashes computed at once: their memory and cores are the master's.
	hashSlots = 2
)

// hashPrefix names the parameters, so that a later change of them can be told from this one.
var hashPrefix = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, hashMemory, hashTime, hashThreads)

// hasher hashes passwords, a few at a time.
type hasher struct {
	slots chan struct{}
	dummy string // the hash of no password, compared for unknown users
}

func newHasher() *hasher {
	return &hasher{
		slots: make(chan struct{}, hashSlots),
		dummy: hashPrefix + encode(randomBytes(saltBytes)) + "$" + encode(randomBytes(hashBytes)),
	}
}

// hash returns the hash of password in the form of the store.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := randomBytes(saltBytes)
	sum, err := h.sum(ctx, password, salt)
	if err != nil {
		return "", err
	}
	return hashPrefix + encode(salt) + "$" + encode(sum), nil
}

// verify reports whether password is the hashed one. An empty hash is of an unknown user, costs the same and never
// matches.
func (h *hasher) verify(ctx context.Context, password, hash string) (bool, error) {
	known := hash != ""
	if !known {
		hash = h.dummy
	}
	rest, ok := strings.CutPrefix(hash, hashPrefix)
	salt64, want64, ok2 := strings.Cut(rest, "$")
	salt, err := base64.RawStdEncoding.DecodeString(salt64)
	want, err2 := base64.RawStdEncoding.DecodeString(want64)
	if !ok || !ok2 || err != nil || err2 != nil || len(want) != hashBytes {
		return false, fmt.Errorf("password hash: not one of ours: %w", errdefs.ErrDataLoss)
	}
	got, err := h.sum(ctx, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

func (h *hasher) sum(ctx context.Context, password string, salt []byte) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("password: %w", context.Cause(ctx))
	}
	defer func() { <-h.slots }()
	return argon2.IDKey([]byte(password), salt, hashTime, hashMemory, hashThreads, hashBytes), nil
}

func encode(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
