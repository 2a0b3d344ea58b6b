package supply

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"

	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/kubernetes/core"
)

// maxNodes bounds how many nodes are given images side by side.
const maxNodes = 8

// Config configures a Supplier. All of it is required.
type Config struct {
	Archives *archive.Store
	Exec     Exec
	Log      *slog.Logger

	// Go runs a function until it returns; its ctx ends with the leadership.
	Go func(func(ctx context.Context) error)
	// Done takes in what became of giving a node of a cluster images.
	Done func(ctx context.Context, name, id string, s core.Supply)
}

// Supplier gives nodes images. Its methods are safe for concurrent use.
type Supplier struct {
	cfg   Config
	slots chan struct{} // holds one for each node that is given images
}

// New returns a supplier.
func New(cfg Config) *Supplier { return &Supplier{cfg: cfg, slots: make(chan struct{}, maxNodes)} }

// Give gives a node of a cluster the images of archives, and tells Done; it does not wait for that. A node's volume
// keeps them, so that it mostly finds them there already.
func (s *Supplier) Give(name, id string, node core.Node, files []string) {
	s.cfg.Go(func(ctx context.Context) error {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return nil
		}
		done := core.Supply{Node: node}
		for _, file := range files {
			s.giveOne(ctx, name, id, file, &done)
		}
		s.cfg.Done(ctx, name, id, done)
		return nil
	})
}

// giveOne gives a node the images of one archive, and adds to done what became of it.
func (s *Supplier) giveOne(ctx context.Context, name, id, file string, done *core.Supply) {
	_, err := s.Import(ctx, done.Node, s.cfg.Archives.Path(id, file))
	switch {
	case err == nil:
		done.Files = append(done.Files, file)
	case errors.Is(err, errArchive):
		done.Broken, done.Lost = append(done.Broken, file), append(done.Lost, file)
		s.cfg.Log.Error("image archive is removed that cannot be read", "cluster", name, "archive", file, "err", err)
		if err := s.cfg.Archives.Remove(id, file); err != nil {
			s.cfg.Log.Error("image archive not removed", "cluster", name, "err", err)
		}
	case errors.Is(err, fs.ErrNotExist): // replaced meanwhile, or taken away
		done.Lost = append(done.Lost, file)
	default:
		done.Err = err
	}
}
