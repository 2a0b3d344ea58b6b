package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/disk"
	"github.com/marinaos/marina/internal/durable"
)

// Limits of what is kept.
const (
	MaxArchives     = 200       // of one cluster
	MaxClusterBytes = 64 << 30  // of one cluster's archives
	MaxBytes        = 256 << 30 // of all clusters' archives
)

const suffix = ".tar"

// Store is the archives of all clusters. Its methods are safe for concurrent use.
type Store struct {
	dir                  string // "": none can be kept
	maxCluster, maxBytes int64
	check                func(more int64) error // refuses what the filesystem has no room for

	mu       sync.Mutex
	kept     map[string]map[string]int64 // bytes by cluster's id and archive; guarded by mu
	incoming map[string]int64            // bytes being received, by cluster's id; guarded by mu
}

// New returns a store in a directory, which is made when it is needed; "" is one that keeps nothing.
func New(dir string) *Store {
	return &Store{dir: dir, maxCluster: MaxClusterBytes, maxBytes: MaxBytes,
		kept: map[string]map[string]int64{}, incoming: map[string]int64{},
		check: func(more int64) error { return disk.Check(dir, more) }}
}

// Open counts what is there, before all else. It removes what was never completed, and everything of clusters that
// are not known; with nil nobody knows which those are.
func (s *Store) Open(known func(id string) bool) error {
	if s.dir == "" {
		return nil
	}
	clusters, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range clusters {
		if known != nil && !known(c.Name()) {
			err = os.RemoveAll(filepath.Join(s.dir, c.Name()))
		} else if c.IsDir() {
			err = s.openCluster(c.Name())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) openCluster(id string) error {
	root, err := os.OpenRoot(filepath.Join(s.dir, id))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := durable.In(root).Sweep("."); err != nil {
		return err
	}
	files, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return err
		}
		if strings.HasSuffix(f.Name(), suffix) {
			s.note(id, f.Name(), info.Size())
		}
	}
	return nil
}

// note records an archive.
func (s *Store) note(id, name string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[id] == nil {
		s.kept[id] = map[string]int64{}
	}
	s.kept[id][name] = size
}

// List names a cluster's archives, oldest first.
func (s *Store) List(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.kept[id]))
}

// Path returns the path of an archive.
func (s *Store) Path(id, name string) string { return filepath.Join(s.dir, id, name) }

// take counts n more bytes of an archive that is being received, or refuses them with what can be done.
func (s *Store) take(in *Incoming, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, largest, whose := int64(0), int64(0), ""
	for id := range s.kept {
		if b := s.bytes(id); b > largest {
			largest, whose = b, id
		}
		all += s.bytes(id)
	}
	for _, b := range s.incoming {
		all += b
	}
	if own := s.bytes(in.id) + s.incoming[in.id]; own+n > s.maxCluster {
		return fmt.Errorf("the images loaded into the cluster take %s of the %s that are kept, in %d archives: "+
			"load images under the names of those that they replace, which removes the older ones, or delete the cluster: %w",
			disk.Bytes(own), disk.Bytes(s.maxCluster), len(s.kept[in.id]), errdefs.ErrResourceExhausted)
	}
	if all+n > s.maxBytes {
		return fmt.Errorf("the images loaded into all clusters take %s of the %s that are kept, "+
			"%s of it those of the cluster of id %s: delete clusters that are not needed: %w",
			disk.Bytes(all), disk.Bytes(s.maxBytes), disk.Bytes(largest), whose, errdefs.ErrResourceExhausted)
	}
	s.incoming[in.id] += n
	in.taken += n
	return nil
}

// bytes returns the size of a cluster's archives. mu is held.
func (s *Store) bytes(id string) (sum int64) {
	for _, n := range s.kept[id] {
		sum += n
	}
	return sum
}

// Incoming is an archive that was received and is not kept yet: it is not listed.
type Incoming struct {
	s     *Store
	id    string
	name  string // that it will have
	file  *durable.File
	taken int64
}

// Receive writes an archive beside those of a cluster. The caller keeps it or drops it.
func (s *Store) Receive(id string, archive io.Reader) (*Incoming, error) {
	if s.dir == "" || id == "" {
		return nil, fmt.Errorf("this master keeps no images of clusters: %w", errdefs.ErrFailedPrecondition)
	}
	if n := len(s.List(id)); n >= MaxArchives {
		return nil, fmt.Errorf("%d archives of images were loaded into the cluster, the most that are kept: "+
			"load images under the names of those that they replace, which removes the older ones: %w", n,
			errdefs.ErrResourceExhausted)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, id), 0o700); err != nil {
		return nil, err
	}
	in := &Incoming{s: s, id: id, name: time.Now().UTC().Format("20060102T150405.000000000") + suffix}
	var err error
	if in.file, err = durable.Create(s.Path(id, in.name), 0o600); err != nil {
		return nil, err
	}
	_, err = io.Copy(&disk.Meter{To: in.file, Check: s.check, Take: func(n int64) error { return s.take(in, n) }}, archive)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("image archive: %w", err), in.Drop())
	}
	return in, nil
}

// Path returns its path until it is kept.
func (in *Incoming) Path() string { return in.file.Name() }

// Keep makes it one of the cluster's archives, durably, and returns its name.
func (in *Incoming) Keep() (string, error) {
	if err := in.file.CommitNew(); err != nil { // another of the same nanosecond stays
		return "", err
	}
	in.s.note(in.id, in.name, in.taken)
	return in.name, in.Drop()
}

// Drop gives it up, unless it is kept; it may be called again.
func (in *Incoming) Drop() error {
	in.s.mu.Lock()
	defer in.s.mu.Unlock()
	in.s.incoming[in.id] -= in.taken
	in.taken = 0
	return in.file.Close()
}

// Remove removes one archive. One that is not there is no error.
func (s *Store) Remove(id, name string) error {
	if err := os.Remove(s.Path(id, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept[id], name)
	return nil
}

// RemoveAll removes everything of a cluster.
func (s *Store) RemoveAll(id string) error {
	if s.dir == "" || id == "" {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(s.dir, id)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, id)
	return nil
}

// Replaced lists the archives of a cluster that have no image but those of the complete names: whoever has those
// needs none of them.
func (s *Store) Replaced(id string, by []string) []string {
	var out []string
	for _, name := range s.List(id) {
		had, err := ReadNames(s.Path(id, name))
		if err != nil { // whoever is given it next says so
			continue
		}
		if !slices.ContainsFunc(had.Complete(), func(n string) bool { return !slices.Contains(by, n) }) {
			out = append(out, name)
		}
	}
	return out
}
