package checkpoint

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/marinaos/marina/internal/durable"
)

// A checkpoint file is a header and a JSON value. The header is the magic, the payload's length and its CRC-32C, both
// big endian: a file that was cut, lengthened or changed in any bit is told from a good one.
const (
	magic        = "marina1\n"
	header       = len(magic) + 8
	corruptExt   = ".corrupt"
	temporaryExt = ".tmp" // of agents before durable

	maxSize = 64 << 20 // bytes of one file; the endpoints of a large datacenter are the largest
)

// Ext ends the names of checkpoints.
const Ext = ".ckpt"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt is the kind of error of a checkpoint that does not check out. It is also an errdefs.ErrDataLoss.
var ErrCorrupt = fmt.Errorf("checkpoint is damaged: %w", errdefs.ErrDataLoss)

func encode(v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(payload) > maxSize-header {
		return nil, fmt.Errorf("checkpoint of %d bytes, the limit is %d: %w", len(payload), maxSize, errdefs.ErrOutOfRange)
	}
	b := make([]byte, 0, header+len(payload))
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	return append(b, payload...), nil
}

func decode(b []byte, v any) error {
	switch {
	case len(b) < header:
		return fmt.Errorf("%w: %d bytes are less than a header", ErrCorrupt, len(b))
	case string(b[:len(magic)]) != magic:
		return fmt.Errorf("%w: it does not begin as a checkpoint", ErrCorrupt)
	}
	length := binary.BigEndian.Uint32(b[len(magic):])
	sum := binary.BigEndian.Uint32(b[len(magic)+4:])
	payload := b[header:]
	if uint64(length) != uint64(len(payload)) {
		return fmt.Errorf("%w: it holds %d bytes of %d", ErrCorrupt, len(payload), length)
	}
	if got := crc32.Checksum(payload, castagnoli); got != sum {
		return fmt.Errorf("%w: checksum %08x, expected %08x", ErrCorrupt, got, sum)
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// Dir is the state directory of one agent, held exclusively. Its methods are safe for concurrent use on different
// names.
type Dir struct {
	Path string
	Root *os.Root
	lock *durable.Lock
	log  *slog.Logger
}

// Open takes the state directory, with directories for what is in it. One that another agent holds is
// errdefs.ErrUnavailable.
func Open(ctx context.Context, path string, log *slog.Logger, dirs ...string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o711); err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	d := &Dir{Path: path, Root: root, log: log}
	if err := d.acquire(ctx); err != nil {
		root.Close()
		return nil, err
	}
	for _, below := range dirs {
		if err := root.Mkdir(below, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			d.Close()
			return nil, fmt.Errorf("agent state: %w", err)
		}
	}
	return d, nil
}

func (d *Dir) acquire(ctx context.Context) error {
	name := filepath.Join(d.Path, "lock")
	lock, err := durable.TakeLock(ctx, name)
	if errdefs.IsUnavailable(err) {
		return fmt.Errorf("agent state %s is held by another agent (pid %d); stop it, or choose another directory: %w",
			d.Path, durable.Holder(name), errdefs.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("agent state: %w", err)
	}
	_ = lock.WritePID() // for the message above only
	d.lock = lock
	return nil
}

// Close lets another agent have the directory.
func (d *Dir) Close() {
	d.lock.Close()
	d.Root.Close()
}

// Save makes v the content of a checkpoint: when it returns nil, v is on disk, and whatever happens there is either v
// or what was there before.
func (d *Dir) Save(name string, v any) error {
	b, err := encode(v)
	if err == nil {
		err = durable.In(d.Root).WriteFile(name, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", filepath.Join(d.Path, name), err)
	}
	return nil
}

// Load reads a checkpoint into v. One that is damaged is set aside under a name of its own, reported, and is then an
// error of kind ErrCorrupt; one that is not there is fs.ErrNotExist.
func (d *Dir) Load(name string, v any) error {
	b, err := d.read(name)
	if err == nil {
		err = decode(b, v)
	}
	if errors.Is(err, ErrCorrupt) {
		err = d.SetAside(name, err)
	}
	return err
}

// SetAside keeps a damaged checkpoint for people, out of the way.
func (d *Dir) SetAside(name string, cause error) error {
	path := filepath.Join(d.Path, name)
	err := fmt.Errorf("%s: %w", path, cause)
	d.log.Error("checkpoint is damaged and set aside", "file", path+corruptExt, "err", cause)
	if rerr := d.Root.Rename(name, name+corruptExt); rerr != nil {
		return fmt.Errorf("%w, and cannot be set aside: %w", err, rerr)
	}
	return err
}

func (d *Dir) read(name string) ([]byte, error) {
	r, err := d.Root.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = fmt.Errorf("%w: it is larger than %d bytes", ErrCorrupt, maxSize)
	}
	return b, err
}

// Remove drops a checkpoint. It need not be durable: one that comes back is handled like one that was never dropped.
func (d *Dir) Remove(name string) error {
	if err := d.Root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint %s: %w", filepath.Join(d.Path, name), err)
	}
	return nil
}

// List names the checkpoints in a directory below, in order, and removes what saves that a crash cut off have left
// there, also those of agents that named it otherwise.
func (d *Dir) List(dir string) ([]string, error) {
	if err := d.sweep(dir); err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	names, err := fs.Glob(d.Root.FS(), path.Join(dir, "*"+Ext))
	if err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	return names, nil
}

func (d *Dir) sweep(dir string) error {
	if err := durable.In(d.Root).Sweep(dir); err != nil {
		return err
	}
	old, err := fs.Glob(d.Root.FS(), path.Join(dir, "*"+Ext+temporaryExt))
	for _, name := range old {
		_ = d.Root.Remove(name)
	}
	return err
}
