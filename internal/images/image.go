package images

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/marinaos/marina/internal/disk"
	"github.com/marinaos/marina/internal/store"
)

// Limits on what may be loaded.
const (
	MaxArchive   = 32 << 30 // bytes of one archive
	MaxEntries   = 100_000  // of one archive
	MaxManifest  = 4 << 20  // bytes of a manifest, index or config that is read into memory
	MaxReference = 512      // bytes

	// MaxTotal bounds the bytes of content that are kept, with what is being received.
	MaxTotal = 256 << 30
)

// Image is one reference of the store.
type Image struct {
	Name      string    `json:"name"`      // normalized: "docker.io/library/hello:1"
	Digest    string    `json:"digest"`    // of the manifest or index: "sha256:..."
	MediaType string    `json:"mediaType"` // of the manifest or index
	Size      int64     `json:"size"`      // bytes of all blobs, shared ones counted fully
	Loaded    time.Time `json:"loaded"`
}

// Images is the store. Its methods are safe for concurrent use.
type Images struct {
	root  *os.Root
	st    store.Store
	table store.Table[Image]
	fence func() (store.Guard, error)
	now   func() time.Time
	log   *slog.Logger
	space space

	collecting sync.RWMutex // loads hold it for reading, Collect for writing: a blob in use is never removed
}

// New opens the image store whose content is in dir, which it creates. fence guards every write to the store; its error
// is the answer while this process does not lead.
func New(dir string, st store.Store, fence func() (store.Guard, error), log *slog.Logger) (*Images, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("image store: %w", err)
	}
	for _, sub := range []string{"blobs", "incoming"} {
		if err := root.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("image store: %w", err)
		}
	}
	s := &Images{root: root, st: st, table: store.NewTable[Image]("images"), fence: fence, now: time.Now, log: log}
	s.space.max, s.space.check = MaxTotal, func(more int64) error { return disk.Check(dir, more) }
	if err := s.clearIncoming(); err != nil {
		return nil, err
	}
	return s, s.measureAll()
}

// List returns the images in the order of their names.
func (s *Images) List(ctx context.Context) ([]Image, error) {
	rows, err := s.table.Read(ctx, s.st)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	out := []Image{}
	for _, img := range rows.All() {
		out = append(out, img)
	}
	return out, nil
}

// Get returns the image of a reference, or errdefs.ErrNotFound.
func (s *Images) Get(ctx context.Context, ref string) (Image, error) {
	n, err := Normalize(ref)
	if err != nil {
		return Image{}, err
	}
	row, err := s.table.Get(ctx, s.st, n)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", n, err)
	}
	return row.Value, nil
}

// Remove takes a reference away and collects content that nothing names any more. Running tasks are not affected.
func (s *Images) Remove(ctx context.Context, ref string) error {
	img, err := s.Get(ctx, ref)
	if err != nil {
		return err
	}
	guard, err := s.fence()
	if err != nil {
		return err
	}
	txn := store.Txn{Guards: []store.Guard{guard, s.table.Exists(img.Name)}, Ops: []store.Op{s.table.Delete(img.Name)}}
	if _, err := s.st.Commit(ctx, txn); err != nil {
		return fmt.Errorf("image %s: %w", img.Name, err)
	}
	return s.Collect(ctx)
}

// Normalize gives a reference its full form. A reference without a tag has "latest"; one by digest keeps it.
func Normalize(ref string) (string, error) {
	if len(ref) > MaxReference {
		return "", fmt.Errorf("image reference of %d bytes, the limit is %d: %w", len(ref), MaxReference,
			errdefs.ErrInvalidArgument)
	}
	r, err := name.ParseReference(strings.TrimSpace(ref), name.WithDefaultRegistry("docker.io"))
	if err != nil || strings.Contains(ref, "..") {
		return "", fmt.Errorf("image reference %q: write it as name:tag, such as hello:1: %w", ref,
			errdefs.ErrInvalidArgument)
	}
	full := r.Name()
	if rest, ok := strings.CutPrefix(full, name.DefaultRegistry+"/"); ok {
		full = "docker.io/" + rest
	}
	if rest, ok := strings.CutPrefix(full, "docker.io/"); ok && !strings.Contains(rest, "/") {
		full = "docker.io/library/" + rest
	}
	return full, nil
}
