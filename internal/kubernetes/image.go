package kubernetes

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/marinaos/marina/internal/kernel"
)

// Images that were loaded into a cluster are kept as archives in a folder of the cluster, so that nodes that come later have
// them as well. Nodes import them by their own containerd: no other cluster sees them.

// maxArchives bounds the archives of one cluster.
const maxArchives = 200

func (k *Clusters) archives(id string) string { return filepath.Join(k.cfg.Images, id) }

func (k *Clusters) removeImages(c *cluster) error {
	if k.cfg.Images == "" {
		return nil
	}
	return os.RemoveAll(k.archives(c.ID))
}

// Load makes the images of an archive (OCI or Docker) available to all nodes of a cluster, also to later ones. It returns their
// names and how many nodes have them now.
func (k *Clusters) Load(ctx context.Context, name string, archive io.Reader) (images []string, nodes int, err error) {
	k.mu.RLock()
	c, err := k.living(name)
	k.mu.RUnlock()
	if err != nil {
		return nil, 0, err
	}
	file, err := k.keep(c.ID, archive)
	if err != nil {
		return nil, 0, err
	}
	running, err := k.nodesRunning(name)
	if err == nil && len(running) == 0 {
		err = fmt.Errorf("cluster %s has no node that runs: try again when it is ready: %w", name, errdefs.ErrFailedPrecondition)
	}
	for task, agent := range running {
		if err == nil {
			images, err = k.load(ctx, agent, task, file)
		}
	}
	if err != nil {
		return nil, 0, errors.Join(err, os.Remove(file))
	}
	err = k.do(ctx, func(ctx context.Context) error {
		c, err := k.living(name)
		if err != nil {
			return err
		}
		k.mu.Lock()
		for task := range running {
			for _, m := range c.members {
				if m.instance != nil && m.instance.Statuses[0].Task == task {
					m.loaded = m.instance.ID
				}
			}
		}
		k.mu.Unlock()
		row := c.Row
		row.Images = slices.Clone(row.Images)
		for _, i := range images {
			if !slices.Contains(row.Images, i) {
				row.Images = append(row.Images, i)
			}
		}
		return k.save(ctx, c, row)
	})
	return images, len(running), err
}

// supply gives a node the images that were loaded into its cluster before it came. A node's volume keeps them, so that it mostly
// finds them there already.
func (k *Clusters) supply(c *cluster, m *member) {
	k.mu.Lock()
	m.loaded = m.instance.ID
	agent, task, id := m.instance.Agent, m.instance.Statuses[0].Task, c.ID
	k.mu.Unlock()
	k.group.Go(func() error {
		files, _ := filepath.Glob(filepath.Join(k.archives(id), "*.tar")) // the pattern is well-formed
		for _, file := range files {
			if _, err := k.load(k.ctx, agent, task, file); err != nil && k.ctx.Err() == nil {
				k.cfg.Log.Error("image not loaded into a new node", "cluster", id, "task", task, "err", err)
			}
		}
		return nil
	})
}

// keep writes an archive into the cluster's folder.
func (k *Clusters) keep(id string, archive io.Reader) (string, error) {
	dir := k.archives(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) >= maxArchives {
		return "", fmt.Errorf("%d archives were loaded into the cluster, the most it keeps: %w", len(entries), errdefs.ErrResourceExhausted)
	}
	f, err := os.CreateTemp(dir, time.Now().UTC().Format("20060102T150405.000")+"-*.tar")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, archive)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("image archive: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// load imports an archive into one node.
func (k *Clusters) load(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := named(f)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := k.ctr(ctx, agent, task, f, "import", "-"); err != nil {
		return nil, err
	}
	var out []string
	for _, raw := range sortedKeys(names) {
		full := names[raw]
		if raw != full { // "hello:1" is docker.io/library/hello:1 to everybody but the archive
			if err := k.ctr(ctx, agent, task, nil, "tag", "--force", raw, full); err != nil && !strings.Contains(err.Error(), "not found") {
				return nil, err
			}
		}
		if !slices.Contains(out, full) {
			out = append(out, full)
		}
	}
	return out, nil
}

// ctr has a node's containerd do something with images.
func (k *Clusters) ctr(ctx context.Context, agent kernel.AgentID, task kernel.TaskID, in io.Reader, args ...string) error {
	var out bytes.Buffer
	argv := append([]string{kernel.BundleTarget + "/runtime/ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", "images"}, args...)
	code, err := k.cfg.Exec(ctx, agent, task, argv, in, &out)
	if err != nil {
		return fmt.Errorf("image archive: node %s: %w", task, err)
	}
	if code != 0 {
		said := strings.Split(strings.TrimSpace(out.String()), "\n")
		return fmt.Errorf("the image could not be imported: %.300s: %w", said[len(said)-1], errdefs.ErrInvalidArgument)
	}
	return nil
}

// maxIndex bounds what is read of an archive's table of contents.
const maxIndex = 4 << 20

// named reads which images an archive names, and the complete name of each. One that names none is an
// errdefs.ErrInvalidArgument.
func named(archive io.Reader) (map[string]string, error) {
	var found []string
	t := tar.NewReader(archive)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, invalid("this is no image archive (what `docker save` or `crane pull` write): %v", err)
		}
		switch path.Clean(h.Name) {
		case "index.json": // OCI
			var index struct {
				Manifests []struct {
					Annotations map[string]string `json:"annotations"`
				} `json:"manifests"`
			}
			if err := json.NewDecoder(io.LimitReader(t, maxIndex)).Decode(&index); err != nil {
				return nil, invalid("the archive's index.json cannot be read: %v", err)
			}
			for _, m := range index.Manifests {
				found = append(found, cmp.Or(m.Annotations["io.containerd.image.name"], m.Annotations["org.opencontainers.image.ref.name"]))
			}
		case "manifest.json": // Docker
			var list []struct{ RepoTags []string }
			if err := json.NewDecoder(io.LimitReader(t, maxIndex)).Decode(&list); err != nil {
				return nil, invalid("the archive's manifest.json cannot be read: %v", err)
			}
			for _, m := range list {
				found = append(found, m.RepoTags...)
			}
		}
	}
	out := map[string]string{}
	for _, raw := range found {
		if ref, err := reference.ParseDockerRef(raw); err == nil && raw != "" {
			out[raw] = ref.String()
		}
	}
	if len(out) == 0 {
		return nil, invalid("the archive names no image: save it with its name, as in `docker save NAME:TAG`")
	}
	return out, nil
}
