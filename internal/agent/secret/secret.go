package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/locks"
	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

const (
	maxBytes = 1 << 20 // of all files of one secret
	maxFiles = 100     // of one secret
	slack    = 1 << 20 // bytes an instance's files may take beside their content: whole pages, names
)

// Source tells what references of kernel.File.Secret stand for.
type Source interface {
	Secret(ctx context.Context, ref string) (kernel.Secret, error)
}

// Config holds the settings of Files.
type Config struct {
	Dir      string // below which the files of instances are mounted
	Storage  runtime.Storage
	Source   Source        // nil: there is nobody who has secrets
	Timeout  time.Duration // of one question to the source
	Patience time.Duration // how long a start waits for its secrets
	Log      *slog.Logger
}

// Files is the files of the instances on one machine. Its methods are safe for concurrent use.
type Files struct {
	cfg  Config
	busy locks.Table // by instance: while its files are written or taken away
}

// New makes the files of a machine.
func New(cfg Config) *Files { return &Files{cfg: cfg} }

// Instance is one whose tasks have files.
type Instance struct {
	ID    kernel.InstanceID
	Spec  *kernel.Spec
	Owner uint32 // the machine's id of the root of its containers
}

// Has reports whether a spec's tasks have files at all.
func Has(s *kernel.Spec) bool {
	return slices.ContainsFunc(s.Tasks, func(t kernel.TaskSpec) bool { return len(t.Files) > 0 })
}

// Refs are the references to secrets in a spec, each once.
func Refs(s *kernel.Spec) []string {
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

// At returns the directory of an instance's files.
func (f *Files) At(id kernel.InstanceID) string { return filepath.Join(f.cfg.Dir, naming.Instance(id)) }

// dirOf is the directory of a task's file in its instance's.
func dirOf(task, file int) string { return strconv.Itoa(task) + "-" + strconv.Itoa(file) }

// Binds are the mounts of a task's files: a file with content by itself, those of a secret by their directory, in which
// they are replaced.
func (f *Files) Binds(id kernel.InstanceID, s *kernel.Spec, task int) []runtime.Bind {
	var out []runtime.Bind
	for i, file := range s.Tasks[task].Files {
		b := runtime.Bind{Source: filepath.Join(f.At(id), dirOf(task, i)), Target: file.Path, ReadOnly: true, Raw: true}
		if file.Secret == "" {
			b.Source = filepath.Join(b.Source, path.Base(file.Path))
		}
		out = append(out, b)
	}
	return out
}

// Fetch gets the contents of an instance's secrets, by reference; who gives them may be away for a while.
func (f *Files) Fetch(ctx context.Context, g Instance) (map[string]kernel.Secret, error) {
	out := map[string]kernel.Secret{}
	until := time.Now().Add(f.cfg.Patience)
	for _, ref := range Refs(g.Spec) {
		for wait := retry.First; ; wait = min(2*wait, retry.Last) {
			s, err := f.fetch(ctx, ref)
			if err == nil {
				out[ref] = s
				break
			}
			if ctx.Err() != nil || time.Now().Add(wait).After(until) {
				return nil, fmt.Errorf("secret %s was not to be had within %s: %w", ref, f.cfg.Patience, err)
			}
			f.cfg.Log.Warn("secret cannot be fetched, trying again", "group", g.ID, "secret", ref, "err", err)
			if !retry.Pause(ctx, wait) {
				return nil, ctx.Err()
			}
		}
	}
	return out, nil
}

// fetch gets and checks one.
func (f *Files) fetch(ctx context.Context, ref string) (kernel.Secret, error) {
	if f.cfg.Source == nil {
		return kernel.Secret{}, fmt.Errorf("this agent knows nobody who has secrets: %w", errdefs.ErrFailedPrecondition)
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	s, err := f.cfg.Source.Secret(ctx, ref)
	if err != nil {
		return s, err
	}
	sum := 0
	for name, b := range s.Files {
		if !naming.IsFile(name) {
			return s, fmt.Errorf("it has a file of name %.100q: %w", name, errdefs.ErrInvalidArgument)
		}
		sum += len(b)
	}
	if sum > maxBytes || len(s.Files) > maxFiles {
		return s, fmt.Errorf("it has %d files of %d bytes, at most %d of %d are taken: %w", len(s.Files), sum, maxFiles,
			maxBytes, errdefs.ErrOutOfRange)
	}
	return s, nil
}

// Place puts the files of an instance's tasks in memory of its own.
func (f *Files) Place(ctx context.Context, g Instance, secrets map[string]kernel.Secret) error {
	if !Has(g.Spec) {
		return nil
	}
	size := int64(slack)
	for i := range g.Spec.Tasks {
		for _, file := range g.Spec.Tasks[i].Files {
			size += int64(len(file.Content))
			if file.Secret != "" {
				size += 2 * maxBytes // the old and the new ones at once
			}
		}
	}
	err := os.MkdirAll(f.cfg.Dir, 0o711)
	if err == nil {
		err = f.cfg.Storage.MountMemory(ctx, f.At(g.ID), size, g.Owner)
	}
	if err == nil {
		err = f.write(ctx, g, secrets)
	}
	return err
}

// Refresh looks for newer contents of an instance's secrets. An instance that ended meanwhile is no error.
func (f *Files) Refresh(ctx context.Context, g Instance) error {
	var errs []error
	fresh := map[string]kernel.Secret{}
	for _, ref := range Refs(g.Spec) {
		s, err := f.fetch(ctx, ref)
		if err != nil {
			errs = append(errs, fmt.Errorf("secret %s: %w", ref, err))
			continue
		}
		fresh[ref] = s
	}
	if err := f.write(ctx, g, fresh); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("files of group %s: %w", g.ID, err))
	}
	return errors.Join(errs...)
}

// Drop takes an instance's files out of memory.
func (f *Files) Drop(ctx context.Context, g Instance) error {
	if !Has(g.Spec) {
		return nil
	}
	defer f.busy.Lock(string(g.ID))()
	return f.cfg.Storage.Unmount(ctx, f.At(g.ID))
}

// DropUnknown takes the files of instances that are not here out of memory. Whether one is here is asked by
// naming.Instance's name.
func (f *Files) DropUnknown(ctx context.Context, known func(name string) bool) error {
	mounted, err := f.cfg.Storage.Mounted(ctx, f.cfg.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range mounted { // listed before: an instance that begins meanwhile is not among them
		if !known(filepath.Base(at)) {
			errs = append(errs, f.cfg.Storage.Unmount(ctx, at))
		}
	}
	return errors.Join(errs...)
}

// write writes what is new of the files of an instance's tasks: contents, and those secrets that are given.
func (f *Files) write(ctx context.Context, g Instance, secrets map[string]kernel.Secret) error {
	defer f.busy.Lock(string(g.ID))()
	mounted, err := f.cfg.Storage.Mounted(ctx, f.cfg.Dir)
	if err != nil {
		return err
	}
	if !slices.Contains(mounted, f.At(g.ID)) { // never to the disk below
		return fmt.Errorf("the memory for them is not there: %w", errdefs.ErrNotFound)
	}
	root, err := os.OpenRoot(f.At(g.ID))
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range g.Spec.Tasks {
		for k, file := range g.Spec.Tasks[i].Files {
			files := map[string][]byte{path.Base(file.Path): file.Content}
			if file.Secret != "" {
				s, ok := secrets[file.Secret]
				if !ok {
					continue
				}
				files = s.Files
			}
			if err := replaceAll(root, dirOf(i, k), files, int(g.Owner)); err != nil {
				return fmt.Errorf("%s: %w", file.Path, err)
			}
		}
	}
	return nil
}

// replaceAll makes the files of a directory those given, each at once, for their owner only.
func replaceAll(root *os.Root, dir string, files map[string][]byte, owner int) error {
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if os.Geteuid() == 0 { // else an agent that is nobody, with a runtime for tests
		if err := root.Lchown(dir, owner, owner); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		at := path.Join(dir, name)
		if have, err := root.ReadFile(at); err == nil && bytes.Equal(have, files[name]) {
			continue
		}
		if err := replace(root, at, files[name], owner); err != nil {
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

func replace(root *os.Root, name string, b []byte, owner int) error {
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
