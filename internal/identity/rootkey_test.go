package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

func testRootKey(t testing.TB) *RootKey {
	t.Helper()
	k, err := LoadRootKey(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRootKeyIsCreatedOnceAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "root.key")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			k, err := LoadRootKey(path)
			if err != nil {
				t.Errorf("start %d: %v", i, err)
				return
			}
			ids[i] = k.ID()
		})
	}
	wg.Wait()
	for i, id := range ids {
		if id != ids[0] {
			t.Errorf("start %d got key %s, want %s", i, id, ids[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %o, want 600", got)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("directory has %d files, want the key alone", len(entries))
	}
}

func TestRootKeyRefusesLooseOrTornFiles(t *testing.T) {
	loose := filepath.Join(t.TempDir(), "loose")
	if err := os.WriteFile(loose, make([]byte, rootKeySize), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRootKey(loose); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("loose file: got %v, want permission denied", err)
	}
	for _, size := range []int{31, 33} {
		torn := filepath.Join(t.TempDir(), "torn")
		if err := os.WriteFile(torn, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadRootKey(torn); !errors.Is(err, errdefs.ErrDataLoss) {
			t.Errorf("file of %d bytes: got %v, want data loss", size, err)
		}
	}
}

func TestSealedSecretOpensOnlyAsItself(t *testing.T) {
	k, other := testRootKey(t), testRootKey(t)
	secret := []byte("the private key")
	s, err := k.Seal("a", secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(s.Data, secret) {
		t.Error("sealed data holds the plain secret")
	}
	if got, err := k.Open("a", s); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("open: got %q, %v, want %q", got, err, secret)
	}
	if _, err := k.Open("b", s); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("open under another name: got %v, want data loss", err)
	}
	if _, err := other.Open("a", s); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("open by another root key: got %v, want failed precondition", err)
	}
	for name, part := range map[string][]byte{"key": s.Key, "data": s.Data} {
		for i := range part {
			part[i] ^= 1
			if _, err := k.Open("a", s); err == nil {
				t.Errorf("open with byte %d of %s flipped: no error", i, name)
			}
			part[i] ^= 1
		}
	}
	again, err := k.Seal("a", secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(again.Data, s.Data) || bytes.Equal(again.Key, s.Key) {
		t.Error("two seals of one secret are equal: a nonce was used twice")
	}
}
