package images

import (
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/disk"
)

// space is the bound on all content together.
type space struct {
	max   int64
	check func(more int64) error // refuses what the filesystem has no room for

	mu   sync.Mutex
	used int64 // bytes of blobs and of what is being received; guarded by mu
}

// taking is one load's part of the space.
type taking struct{ n int64 }

func (s *space) give(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

// take adds to what a load holds, or refuses with what can be done.
func (s *Images) take(t *taking, n int64) error {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	if s.space.used+n > s.space.max {
		return fmt.Errorf("loaded images take %s of the %s that are kept, and this one does not fit: remove images with "+
			"`marina image remove`: %w",
			disk.Bytes(s.space.used), disk.Bytes(s.space.max), errdefs.ErrResourceExhausted)
	}
	s.space.used += n
	t.n += n
	return nil
}

// reserve takes what will be written by others than a meter.
func (s *Images) reserve(t *taking, n int64) error {
	if err := s.checkRoom(n); err != nil {
		return err
	}
	return s.take(t, n)
}

func (s *Images) checkRoom(more int64) error {
	if err := s.space.check(more); err != nil {
		return fmt.Errorf("no room for the image, others can be removed with `marina image remove`: %w", err)
	}
	return nil
}

// meter writes to w as far as there is space, and notes in t what it took.
func (s *Images) meter(w io.Writer, t *taking) io.Writer {
	return &disk.Meter{To: w, Take: func(n int64) error { return s.take(t, n) }, Check: s.checkRoom}
}

// clearIncoming removes what a process that ended was receiving.
func (s *Images) clearIncoming() error {
	entries, err := fs.ReadDir(s.root.FS(), "incoming")
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	for _, e := range entries {
		if err := s.root.RemoveAll("incoming/" + e.Name()); err != nil {
			return fmt.Errorf("image store: %w", err)
		}
	}
	return nil
}

// measureAll counts what is kept. Nobody loads meanwhile.
func (s *Images) measureAll() error {
	entries, err := fs.ReadDir(s.root.FS(), "blobs")
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("image store: %w", err)
		}
		total += info.Size()
	}
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.space.used = total
	return nil
}
