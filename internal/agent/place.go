package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/secret"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
)

// generatedDir holds each instance's resolv.conf, hosts and hostname, by its name.
const generatedDir = "network"

// owner says whose the instance's files are: the machine's id of the root of its containers.
func (g *instance) owner() secret.Instance {
	id := g.a.rt.IDs().First
	switch {
	case g.spec.Network.Mode == kernel.NetworkHost:
		id = 0
	case g.ids != nil:
		id = g.ids.First
	}
	return secret.Instance{ID: g.id, Spec: g.spec, Owner: id}
}

// makePlace makes a task's sandbox and its instance's generated files; what is there is kept.
func (g *instance) makePlace(task int) (place, error) {
	a, id := g.a, g.tasks[task]
	dir := path.Join(generatedDir, naming.Instance(g.id))
	w := place{lent: a.cfg.HostVolumes, hostname: a.cfg.Hostname, machine: a.cfg.Address, sandbox: a.sandboxes.Path(id),
		generated: filepath.Join(a.dir.Path, dir), netns: g.given.netns, volumes: g.given.volumes, ids: g.ids,
		files: a.files.Binds(g.id, g.spec, task)}
	if hasNode(g.spec) && g.ids != nil {
		w.userns = kernel.UserNamespace(g.given.netns)
	}
	if err := a.sandboxes.Make(id, g.spec.Tasks[task].Volumes); err != nil {
		return w, err
	}
	root := a.dir.Root
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return w, err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	if g.spec.Tasks[task].Class == kernel.ClassNode {
		if err := writeNode(root, &g.rec, task); err != nil {
			return w, err
		}
	}
	for name, content := range generated(&g.rec, w, a.network.Resolver(), resolv) {
		if err := root.WriteFile(path.Join(dir, name), content, 0o644); err != nil {
			return w, err
		}
	}
	return w, nil
}

// leavePlace removes the instance's generated files and marks its sandboxes as ended now.
func (g *instance) leavePlace() {
	if err := g.a.dir.Root.RemoveAll(path.Join(generatedDir, naming.Instance(g.id))); err != nil {
		g.log.Warn("generated files not removed", "err", err)
	}
	for _, t := range g.tasks {
		if naming.IsTask(t) { // else it has none
			g.a.sandboxes.End(t)
		}
	}
}

// minFreeInodes is the share of inodes below which nothing is started.
const minFreeInodes = 0.01

// diskFree refuses new starts while the machine's disk is nearly full, with errdefs.ErrResourceExhausted.
func (a *Agent) diskFree() error {
	free, inodes, err := machine.FreeDisk(a.dir.Path)
	switch {
	case err != nil:
		return err
	case free < a.cfg.MinFreeDisk:
		return fmt.Errorf("the machine's disk is nearly full: %s free, at least %s are kept; remove something: %w",
			kernel.FormatBytes(free), kernel.FormatBytes(a.cfg.MinFreeDisk), errdefs.ErrResourceExhausted)
	case inodes < minFreeInodes:
		return fmt.Errorf("the machine's disk is nearly out of inodes: %.1f%% free; remove files: %w",
			100*inodes, errdefs.ErrResourceExhausted)
	}
	return nil
}
