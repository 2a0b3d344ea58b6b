package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/scheduler"
)

// Load makes the images of an archive (OCI or Docker) available to all nodes of a cluster, also to later ones. It
// returns their names and how many nodes have them now. An archive whose images are all named by a later one is not
// kept any longer.
func (k *Clusters) Load(ctx context.Context, name string, from io.Reader) (images []string, nodes int, err error) {
	var id string
	if err := k.living(name, func(c *core.Cluster) { id = c.ID }); err != nil {
		return nil, 0, err
	}
	in, err := k.archives.Receive(id, from)
	if err != nil {
		return nil, 0, fmt.Errorf("cluster %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, in.Drop()) }()
	var running []core.Node
	err = k.living(name, func(c *core.Cluster) { running = c.Joined() })
	if err == nil && len(running) == 0 {
		err = fmt.Errorf("cluster %s has no node that runs: try again when it is ready: %w", name,
			errdefs.ErrFailedPrecondition)
	}
	for _, n := range running {
		if err == nil {
			images, err = k.supplier.Import(ctx, n, in.Path())
		}
	}
	if err != nil {
		return nil, 0, err
	}
	return images, len(running), k.keepImages(ctx, name, id, in, images, running)
}

// keepImages makes an archive that all running nodes have one that later nodes get.
func (k *Clusters) keepImages(ctx context.Context, name, id string, in *archive.Incoming, images []string,
	have []core.Node) error {
	old := k.archives.Replaced(id, images)
	file, err := in.Keep()
	if err != nil {
		return fmt.Errorf("cluster %s: %w", name, err)
	}
	err = k.change(ctx, name, func(_ context.Context, change *scheduler.Change) error {
		c, err := k.state.Living(name)
		if err != nil {
			return err
		}
		if c.ID != id {
			return core.NotFound(name)
		}
		row := c.Row
		row.Images = slices.Clone(row.Images)
		for _, i := range images {
			if !slices.Contains(row.Images, i) {
				row.Images = append(row.Images, i)
			}
		}
		k.then(change, func() { c.Load(file, old, have) })
		return k.putRow(change, c, row)
	})
	if err != nil {
		return errors.Join(err, k.archives.Remove(id, file))
	}
	for _, f := range old {
		if err := k.archives.Remove(id, f); err != nil {
			k.cfg.Log.Error("image archive not removed", "cluster", name, "err", err)
		}
	}
	return nil
}
