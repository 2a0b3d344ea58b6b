package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/archive"
	"github.com/marinaos/marina/internal/scheduler"
)

// Images that were loaded into a cluster are kept as archives, so that nodes that come later have them as well. Nodes
// import them by their own containerd: no other cluster sees them.

// maxSupply is how many nodes are given images side by side.
const maxSupply = 8

// Load makes the images of an archive (OCI or Docker) available to all nodes of a cluster, also to later ones. It
// returns their names and how many nodes have them now. An archive whose images are all named by a later one is not
// kept any longer.
func (k *Clusters) Load(ctx context.Context, name string, from io.Reader) (images []string, nodes int, err error) {
	k.mu.RLock()
	c, err := k.clusters.living(name)
	k.mu.RUnlock()
	if err != nil {
		return nil, 0, err
	}
	in, err := k.archives.Receive(c.ID, from)
	if err != nil {
		return nil, 0, fmt.Errorf("cluster %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, in.Drop()) }()
	running, err := k.nodesRunning(name)
	if err == nil && len(running) == 0 {
		err = fmt.Errorf("cluster %s has no node that runs: try again when it is ready: %w", name,
			errdefs.ErrFailedPrecondition)
	}
	for _, n := range running {
		if err == nil {
			images, err = k.importer.load(ctx, n.agent, n.task, in.Path())
		}
	}
	if err != nil {
		return nil, 0, err
	}
	return images, len(running), k.keepImages(ctx, name, c.ID, in, images, running)
}

// keepImages makes an archive that all running nodes have one that later nodes get.
func (k *Clusters) keepImages(ctx context.Context, name, id string, in *archive.Incoming, images []string,
	have []runningNode) error {
	old := k.archives.Replaced(id, images)
	file, err := in.Keep()
	if err != nil {
		return fmt.Errorf("cluster %s: %w", name, err)
	}
	err = k.change(ctx, name, func(_ context.Context, change *scheduler.Change) error {
		c, err := k.clusters.living(name)
		if err != nil {
			return err
		}
		if c.ID != id {
			return notFound(name)
		}
		row := c.Row
		row.Images = slices.Clone(row.Images)
		for _, i := range images {
			if !slices.Contains(row.Images, i) {
				row.Images = append(row.Images, i)
			}
		}
		k.then(change, func() { c.loaded(file, old, have) })
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

// loaded takes in an archive that running nodes have, in place of others.
func (c *cluster) loaded(file string, old []string, have []runningNode) {
	c.archives = slices.DeleteFunc(slices.Clone(c.archives), func(f string) bool { return slices.Contains(old, f) })
	c.archives = append(c.archives, file)
	for _, n := range have {
		if m := c.members[n.member]; m != nil && m.instance != nil && m.instance.ID == n.group {
			m.give(file)
		}
	}
}

// supplied is what became of giving a node images that were loaded into its cluster before it came.
type supplied struct {
	id, member string // of the cluster
	group      kernel.InstanceID
	files      []string // that it has now
	lost       []string // that are not there, or cannot be read: nobody will ever have them
	broken     []string // of those, what could not be read
	err        error    // why it lacks others
}

// supply gives a node the images that it lacks. A node's volume keeps them, so that it mostly finds them there already.
func (k *Clusters) supply(c *cluster, m *member) {
	files, s := k.beginSupply(c, m)
	name, agent, task := c.Name, m.instance.Agent, m.instance.Statuses[0].Task
	k.loop.Go(func(ctx context.Context) error {
		select {
		case k.supplying <- struct{}{}:
			defer func() { <-k.supplying }()
		case <-ctx.Done():
			return nil
		}
		for _, file := range files {
			_, err := k.importer.load(ctx, agent, task, k.archives.Path(s.id, file))
			switch {
			case err == nil:
				s.files = append(s.files, file)
			case errors.Is(err, errArchive):
				s.broken, s.lost = append(s.broken, file), append(s.lost, file)
				k.cfg.Log.Error("image archive is removed that cannot be read", "cluster", name, "archive", file, "err", err)
				if err := k.archives.Remove(s.id, file); err != nil {
					k.cfg.Log.Error("image archive not removed", "cluster", name, "err", err)
				}
			case errors.Is(err, fs.ErrNotExist): // replaced meanwhile, or taken away
				s.lost = append(s.lost, file)
			default:
				s.err = err
			}
		}
		k.tell(ctx, name, func() { k.receiveSupply(name, s) })
		return nil
	})
}

func (k *Clusters) beginSupply(c *cluster, m *member) (files []string, s supplied) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m.supplying = m.instance.ID
	return c.lacks(m), supplied{id: c.ID, member: m.name, group: m.instance.ID}
}

// receiveSupply takes in what became of giving a node images.
func (k *Clusters) receiveSupply(name string, s supplied) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, now := k.clusters[name], k.cfg.Now()
	if c == nil || c.ID != s.id {
		return
	}
	for _, file := range s.broken {
		c.add(now, "the archive "+file+" of loaded images cannot be read and is removed: load its images again")
	}
	c.archives = slices.DeleteFunc(slices.Clone(c.archives), func(f string) bool { return slices.Contains(s.lost, f) })
	m := c.members[s.member]
	if m == nil || m.supplying != s.group {
		return
	}
	m.supplying = ""
	if m.instance == nil || m.instance.ID != s.group {
		return
	}
	for _, file := range s.files {
		m.give(file)
	}
	if s.err != nil {
		c.fail(m.name, supplyStep, s.err, now)
		return
	}
	c.mend(m.name, supplyStep)
	if len(c.lacks(m)) == 0 && len(s.files) > 0 {
		c.add(now, m.name+" has the images that were loaded into the cluster")
	}
}
