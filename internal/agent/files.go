package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

const (
	maxSecret     = 1 << 20 // bytes of all files of one secret
	maxSecretFile = 100     // files of one secret
	fileSlack     = 1 << 20 // bytes a group's files may take beside their content: whole pages, names
)

// filesFolder is where the files of running groups are mounted, each group's by the name of its checkpoint.
func (a *Agent) filesFolder() string { return filepath.Join(a.cfg.Run, "files") }

func filesName(id kernel.GroupID) string { return strings.TrimSuffix(groupFile(id), checkpointExt) }

// filesAt is where the group's files are.
func (g *group) filesAt() string { return filepath.Join(g.a.filesFolder(), filesName(g.id)) }

// owner is the machine's id of the root of the group's containers.
func (g *group) owner() uint32 {
	switch {
	case g.spec.Network.Mode == kernel.NetworkHost:
		return 0
	case g.ids != nil:
		return g.ids.First
	}
	return g.a.rt.IDs().First
}

// fileName is the folder of a task's file in its group's.
func fileName(task, file int) string { return strconv.Itoa(task) + "-" + strconv.Itoa(file) }

// fileBinds are the mounts of a task's files: a file with content by itself, those of a secret by their folder, in which they
// are replaced.
func fileBinds(rec *record, task int, at string) []runtime.Bind {
	var out []runtime.Bind
	for i, f := range rec.Spec.Tasks[task].Files {
		b := runtime.Bind{Source: filepath.Join(at, fileName(task, i)), Target: f.Path, ReadOnly: true, Raw: true}
		if f.Secret == "" {
			b.Source = filepath.Join(b.Source, path.Base(f.Path))
		}
		out = append(out, b)
	}
	return out
}

// secretRefs are the references of a spec, each once.
func secretRefs(s *kernel.Spec) []string {
	refs := map[string]bool{}
	for i := range s.Tasks {
		for _, f := range s.Tasks[i].Files {
			if f.Secret != "" {
				refs[f.Secret] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(refs))
}

// fetchSecrets gets the contents of the group's secrets; who gives them may be away for a while.
func (g *group) fetchSecrets(ctx context.Context) *ending {
	g.secrets = map[string]kernel.Secret{}
	until := time.Now().Add(g.a.cfg.SecretsPatience)
	for _, ref := range secretRefs(g.spec) {
		for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
			s, err := g.a.secret(ctx, ref)
			if err == nil {
				g.secrets[ref] = s
				break
			}
			if ctx.Err() != nil || time.Now().Add(wait).After(until) {
				return g.failed(ctx, all, fmt.Errorf("secret %s was not to be had within %s: %w", ref, g.a.cfg.SecretsPatience, err))
			}
			g.log.Warn("secret cannot be fetched, trying again", "secret", ref, "err", err)
			if !pause(ctx, wait) {
				return g.failed(ctx, all, ctx.Err())
			}
		}
	}
	return nil
}

// secret fetches and checks one.
func (a *Agent) secret(ctx context.Context, ref string) (kernel.Secret, error) {
	if a.secrets == nil {
		return kernel.Secret{}, fmt.Errorf("this agent knows nobody who has secrets: %w", errdefs.ErrFailedPrecondition)
	}
	s, err := call(ctx, a, func(ctx context.Context) (kernel.Secret, error) { return a.secrets.Secret(ctx, ref) })
	if err != nil {
		return s, err
	}
	sum := 0
	for name, b := range s.Files {
		if !safeFile(name) {
			return s, fmt.Errorf("it has a file of name %.100q: %w", name, errdefs.ErrInvalidArgument)
		}
		sum += len(b)
	}
	if sum > maxSecret || len(s.Files) > maxSecretFile {
		return s, fmt.Errorf("it has %d files of %d bytes, at most %d of %d are taken: %w", len(s.Files), sum, maxSecretFile, maxSecret, errdefs.ErrOutOfRange)
	}
	return s, nil
}

func (g *group) hasFiles() bool {
	return slices.ContainsFunc(g.spec.Tasks, func(t kernel.TaskSpec) bool { return len(t.Files) > 0 })
}

// placeFiles puts the files of the group's tasks in memory of its own.
func (g *group) placeFiles(ctx context.Context) *ending {
	if !g.hasFiles() {
		return nil
	}
	size := int64(fileSlack)
	for i := range g.spec.Tasks {
		for _, f := range g.spec.Tasks[i].Files {
			size += int64(len(f.Content))
			if f.Secret != "" {
				size += 2 * maxSecret // the old and the new ones at once
			}
		}
	}
	err := os.MkdirAll(g.a.filesFolder(), 0o711)
	if err == nil {
		_, err = call(ctx, g.a, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, g.a.rt.MountMemory(ctx, g.filesAt(), size, g.owner())
		})
	}
	if err == nil {
		err = g.writeFiles(ctx, g.secrets)
	}
	g.secrets = nil
	if err != nil {
		return g.failed(ctx, all, fmt.Errorf("files of the group: %w", err))
	}
	return nil
}

// writeFiles writes what is new of the files of the group's tasks: contents, and those secrets that are given.
func (g *group) writeFiles(ctx context.Context, secrets map[string]kernel.Secret) error {
	g.filesMu.Lock()
	defer g.filesMu.Unlock()
	mounted, err := call(ctx, g.a, func(ctx context.Context) ([]string, error) { return g.a.rt.Mounted(ctx, g.a.filesFolder()) })
	if err != nil {
		return err
	}
	if !slices.Contains(mounted, g.filesAt()) { // never to the disk below
		return fmt.Errorf("the memory for them is not there: %w", errdefs.ErrNotFound)
	}
	root, err := os.OpenRoot(g.filesAt())
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range g.spec.Tasks {
		for k, f := range g.spec.Tasks[i].Files {
			files := map[string][]byte{path.Base(f.Path): f.Content}
			if f.Secret != "" {
				s, ok := secrets[f.Secret]
				if !ok {
					continue
				}
				files = s.Files
			}
			if err := replaceFiles(root, fileName(i, k), files, int(g.owner())); err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
		}
	}
	return nil
}

// replaceFiles makes the files of a folder those given, each at once, for their owner only.
func replaceFiles(root *os.Root, dir string, files map[string][]byte, owner int) error {
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := chownIfRoot(root, dir, owner); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		at := path.Join(dir, name)
		if have, err := root.ReadFile(at); err == nil && bytes.Equal(have, files[name]) {
			continue
		}
		if err := replaceOwned(root, at, files[name], owner); err != nil {
			return err
		}
	}
	have, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return err
	}
	for _, e := range have {
		if _, ok := files[e.Name()]; !ok {
			if err := root.Remove(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func replaceOwned(root *os.Root, name string, b []byte, owner int) error {
	f, err := durable.In(root).Create(name, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := f.Chown(owner, owner); err != nil {
			return err
		}
	}
	return f.Replace()
}

// chownIfRoot gives a file to its owner where that can be done: not by agents that are nobody, with a runtime for tests.
func chownIfRoot(root *os.Root, name string, owner int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return root.Lchown(name, owner, owner)
}

// dropFiles takes the group's files out of memory.
func (g *group) dropFiles(ctx context.Context) error {
	if !g.hasFiles() {
		return nil
	}
	g.filesMu.Lock()
	defer g.filesMu.Unlock()
	_, err := call(ctx, g.a, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.a.rt.Unmount(ctx, g.filesAt()) })
	return err
}

// dropUnknownFiles takes the files of groups that are not here out of memory.
func (a *Agent) dropUnknownFiles(ctx context.Context) error {
	mounted, err := call(ctx, a, func(ctx context.Context) ([]string, error) { return a.rt.Mounted(ctx, a.filesFolder()) })
	if err != nil {
		return err
	}
	known := map[string]bool{}
	a.mu.Lock()
	for id := range a.groups {
		known[filesName(id)] = true
	}
	a.mu.Unlock()
	var errs []error
	for _, at := range mounted { // listed before: a group that begins meanwhile is not among them
		if !known[filepath.Base(at)] {
			_, err := call(ctx, a, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.rt.Unmount(ctx, at) })
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// refreshSecrets looks for newer contents of the secrets of everything that runs.
func (a *Agent) refreshSecrets() error {
	var running []*group
	a.mu.Lock()
	for _, g := range a.groups {
		if len(g.shown) > 0 && g.shown[0].State == kernel.Running && len(secretRefs(g.spec)) > 0 {
			running = append(running, g)
		}
	}
	a.mu.Unlock()
	var errs []error
	for _, g := range running {
		fresh := map[string]kernel.Secret{}
		for _, ref := range secretRefs(g.spec) {
			s, err := a.secret(a.base, ref)
			if err != nil {
				errs = append(errs, fmt.Errorf("secret %s: %w", ref, err))
				continue
			}
			fresh[ref] = s
		}
		if err := g.writeFiles(a.base, fresh); err != nil && !errdefs.IsNotFound(err) { // not found: it ended meanwhile
			errs = append(errs, fmt.Errorf("files of group %s: %w", g.id, err))
		}
	}
	return errors.Join(errs...)
}
