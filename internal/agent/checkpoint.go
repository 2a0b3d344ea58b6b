package agent

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
	"strings"

	"github.com/containerd/errdefs"
	"github.com/marinaos/marina/internal/durable"
)

// A checkpoint file is a header and a JSON value. The header is the magic, the payload's length and its CRC-32C, both big
// endian: a file that was cut, lengthened or changed in any bit is told from a good one.
const (
	checkpointMagic  = "marina1\n"
	checkpointHeader = len(checkpointMagic) + 8
	checkpointExt    = ".ckpt"
	corruptExt       = ".corrupt"
	temporaryExt     = ".tmp" // of agents before durable

	maxCheckpoint = 64 << 20 // bytes of one file; the endpoints of a large datacenter are the largest
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCorrupt is the kind of error of a checkpoint that does not check out. It is also an errdefs.ErrDataLoss.
var errCorrupt = fmt.Errorf("checkpoint is damaged: %w", errdefs.ErrDataLoss)

func encodeCheckpoint(v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(payload) > maxCheckpoint-checkpointHeader {
		return nil, fmt.Errorf("checkpoint of %d bytes, the limit is %d: %w", len(payload), maxCheckpoint, errdefs.ErrOutOfRange)
	}
	b := make([]byte, 0, checkpointHeader+len(payload))
	b = append(b, checkpointMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	return append(b, payload...), nil
}

func decodeCheckpoint(b []byte, v any) error {
	switch {
	case len(b) < checkpointHeader:
		return fmt.Errorf("%w: %d bytes are less than a header", errCorrupt, len(b))
	case string(b[:len(checkpointMagic)]) != checkpointMagic:
		return fmt.Errorf("%w: it does not begin as a checkpoint", errCorrupt)
	}
	length := binary.BigEndian.Uint32(b[len(checkpointMagic):])
	sum := binary.BigEndian.Uint32(b[len(checkpointMagic)+4:])
	payload := b[checkpointHeader:]
	if uint64(length) != uint64(len(payload)) {
		return fmt.Errorf("%w: it holds %d bytes of %d", errCorrupt, len(payload), length)
	}
	if got := crc32.Checksum(payload, castagnoli); got != sum {
		return fmt.Errorf("%w: checksum %08x, expected %08x", errCorrupt, got, sum)
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return nil
}

// folder is the state folder of one agent, held exclusively. Its methods are safe for concurrent use on different names.
type folder struct {
	path string
	root *os.Root
	lock *durable.Lock
	log  *slog.Logger
}

// openFolder takes the state folder. A folder that another agent holds is errdefs.ErrUnavailable.
func openFolder(ctx context.Context, path string, log *slog.Logger) (*folder, error) {
	if err := os.MkdirAll(path, 0o711); err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	f := &folder{path: path, root: root, log: log}
	if err := f.acquire(ctx); err != nil {
		root.Close()
		return nil, err
	}
	for _, d := range []string{"groups", "network", "sandboxes", "volumes"} {
		if err := root.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			f.close()
			return nil, fmt.Errorf("agent state: %w", err)
		}
	}
	return f, nil
}

func (f *folder) acquire(ctx context.Context) error {
	name := filepath.Join(f.path, "lock")
	lock, err := durable.TakeLock(ctx, name)
	if errdefs.IsUnavailable(err) {
		return fmt.Errorf("agent state %s is held by another agent (pid %d); stop it, or choose another folder: %w",
			f.path, durable.Holder(name), errdefs.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("agent state: %w", err)
	}
	_ = lock.WritePID() // for the message above only
	f.lock = lock
	return nil
}

func (f *folder) close() {
	f.lock.Close()
	f.root.Close()
}

// save makes v the content of a checkpoint: when it returns nil, v is on disk, and whatever happens there is either v or
// what was there before.
func (f *folder) save(name string, v any) error {
	b, err := encodeCheckpoint(v)
	if err == nil {
		err = durable.In(f.root).WriteFile(name, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", filepath.Join(f.path, name), err)
	}
	return nil
}

// load reads a checkpoint into v. One that is damaged is set aside under a name of its own, reported, and is then an error
// of kind errCorrupt; one that is not there is fs.ErrNotExist.
func (f *folder) load(name string, v any) error {
	b, err := f.read(name)
	if err == nil {
		err = decodeCheckpoint(b, v)
	}
	if errors.Is(err, errCorrupt) {
		err = f.setAside(name, err)
	}
	return err
}

// setAside keeps a damaged checkpoint for people, out of the way.
func (f *folder) setAside(name string, cause error) error {
	path := filepath.Join(f.path, name)
	err := fmt.Errorf("%s: %w", path, cause)
	f.log.Error("checkpoint is damaged and set aside", "file", path+corruptExt, "err", cause)
	if rerr := f.root.Rename(name, name+corruptExt); rerr != nil {
		return fmt.Errorf("%w, and cannot be set aside: %w", err, rerr)
	}
	return err
}

func (f *folder) read(name string) ([]byte, error) {
	r, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxCheckpoint+1))
	if err == nil && len(b) > maxCheckpoint {
		err = fmt.Errorf("%w: it is larger than %d bytes", errCorrupt, maxCheckpoint)
	}
	return b, err
}

// remove drops a checkpoint. It need not be durable: one that comes back is handled like one that was never dropped.
func (f *folder) remove(name string) error {
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint %s: %w", filepath.Join(f.path, name), err)
	}
	return nil
}

// sweep removes what saves that a crash cut off have left, also those of agents that named it otherwise.
func (f *folder) sweep() error {
	for _, dir := range []string{".", "groups"} {
		if err := durable.In(f.root).Sweep(dir); err != nil {
			return err
		}
		old, err := fs.Glob(f.root.FS(), path.Join(dir, "*"+checkpointExt+temporaryExt))
		if err != nil {
			return err
		}
		for _, name := range old {
			_ = f.root.Remove(name)
		}
	}
	return nil
}

// groups reads the checkpoints of all groups. Damaged ones are set aside and missing from the answer.
func (f *folder) groups() ([]record, error) {
	if err := f.sweep(); err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	names, err := fs.ReadDir(f.root.FS(), "groups")
	if err != nil {
		return nil, fmt.Errorf("agent state: %w", err)
	}
	var out []record
	for _, e := range names {
		name := "groups/" + e.Name()
		if !strings.HasSuffix(name, checkpointExt) {
			continue
		}
		var r record
		err := f.load(name, &r)
		if err == nil && (!r.valid() || groupFile(r.Group.ID) != e.Name()) {
			err = f.setAside(name, fmt.Errorf("%w: its parts do not fit together", errCorrupt))
		}
		if errors.Is(err, errCorrupt) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("agent state: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}
