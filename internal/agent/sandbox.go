package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
)

// maxWalk bounds how many files of one sandbox are looked at when it is measured.
const maxWalk = 1_000_000

// makePlace makes a task's sandbox and its group's generated files; what is there is kept.
func (a *Agent) makePlace(rec *record, task int) (place, error) {
	id := string(rec.Tasks[task].Status.Task)
	net := "network/" + strings.TrimSuffix(groupFile(rec.Group.ID), checkpointExt)
	w := place{lent: a.cfg.HostVolumes, hostname: a.cfg.Hostname, machine: a.cfg.Address, sandbox: filepath.Join(a.folder.path, "sandboxes", id),
		files: filepath.Join(a.folder.path, net)}
	root := a.folder.root
	for _, d := range []string{"sandboxes/" + id, net} {
		if err := root.MkdirAll(d, 0o755); err != nil {
			return w, err
		}
	}
	// A task may be any user, also one mapped from a user namespace. The folder above is open to nobody else, and the
	// sticky bit keeps its output files.
	if err := root.Chmod("sandboxes/"+id, 0o777|fs.ModeSticky); err != nil {
		return w, err
	}
	for _, name := range []string{"stdout", "stderr"} {
		f, err := root.OpenFile("sandboxes/"+id+"/"+name, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK, 0o644)
		if err != nil {
			return w, err
		}
		f.Close()
	}
	for _, v := range rec.Spec.Tasks[task].Volumes {
		if v.HostPath != "" && filepath.IsLocal(v.HostPath) {
			if err := root.MkdirAll("sandboxes/"+id+"/"+filepath.Clean(v.HostPath), 0o777); err != nil {
				return w, err
			}
		}
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	if rec.Spec.Tasks[task].Class == kernel.ClassNode {
		if err := a.writeNodeFiles(rec, task); err != nil {
			return w, err
		}
	}
	for name, content := range generated(rec, w, a.network.Resolver(), resolv) {
		if err := root.WriteFile(net+"/"+name, content, 0o644); err != nil {
			return w, err
		}
	}
	return w, nil
}

// leavePlace removes the group's generated files and marks its sandboxes as ended now. They stay for people to read until
// they are collected.
func (a *Agent) leavePlace(rec *record) {
	net := "network/" + strings.TrimSuffix(groupFile(rec.Group.ID), checkpointExt)
	if err := a.folder.root.RemoveAll(net); err != nil {
		a.log.Warn("generated files not removed", "group", rec.Group.ID, "err", err)
	}
	now := time.Now()
	for i := range rec.Tasks {
		if safeName(rec.Tasks[i].Status.Task) { // else it has none
			_ = a.folder.root.Chtimes("sandboxes/"+string(rec.Tasks[i].Status.Task), now, now)
		}
	}
}

// minFreeInodes is the share of inodes below which nothing is started.
const minFreeInodes = 0.01

// room refuses new starts while the machine's disk is nearly full, with errdefs.ErrResourceExhausted.
func (a *Agent) room() error {
	free, inodes, err := machine.FreeDisk(a.folder.path)
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

// usage is how many bytes a sandbox takes on the disk. Links are not followed, files with several names count once, and
// what is mounted inside does not count.
func (a *Agent) usage(task string) (int64, error) {
	sub, err := a.folder.root.OpenRoot("sandboxes/" + task)
	if err != nil {
		return 0, err
	}
	defer sub.Close()
	var sum int64
	var device uint64
	seen, walked := map[uint64]bool{}, 0
	err = fs.WalkDir(sub.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile, or unreadable: what can be read counts
		}
		if walked++; walked > maxWalk {
			return fs.SkipAll
		}
		i, err := d.Info()
		if err != nil {
			return nil
		}
		s, ok := i.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if device == 0 {
			device = s.Dev
		}
		if s.Dev != device {
			return fs.SkipDir
		}
		if s.Nlink > 1 && !d.IsDir() {
			if seen[s.Ino] {
				return nil
			}
			seen[s.Ino] = true
		}
		sum += s.Blocks * 512
		return nil
	})
	return sum, err
}

// collectSandboxes removes the sandboxes of ended tasks that are old, too many or in the way.
func (a *Agent) collectSandboxes() error {
	entries, err := fs.ReadDir(a.folder.root.FS(), "sandboxes")
	if err != nil {
		return fmt.Errorf("sandboxes: %w", err)
	}
	live := a.liveTasks()
	var ended []box
	for _, e := range entries {
		if live[kernel.TaskID(e.Name())] {
			continue
		}
		if i, err := e.Info(); err == nil {
			ended = append(ended, box{name: e.Name(), ended: i.ModTime()})
		}
	}
	free, _, err := machine.FreeDisk(a.folder.path)
	if err != nil {
		return err
	}
	if free < a.cfg.SandboxFree { // only then do their sizes matter
		for i := range ended {
			ended[i].bytes, _ = a.usage(ended[i].name)
		}
	}
	var errs []error
	for _, name := range decideSandboxes(&a.cfg, ended, time.Now(), free) {
		if err := a.folder.root.RemoveAll("sandboxes/" + name); err != nil {
			errs = append(errs, fmt.Errorf("sandbox %s: %w", name, err))
			continue
		}
		a.log.Info("sandbox collected", "task", name)
	}
	return errors.Join(errs...)
}
