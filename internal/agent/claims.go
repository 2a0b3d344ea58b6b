package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

const (
	volumesFolder = "volumes" // of the state folder; below it FRAMEWORK/CLAIM/NAME.img and, while in use, NAME
	imageExt      = ".img"

	volumeTimeout = 10 * time.Minute // for one to be made, repaired or grown
	releaseRetry  = time.Second      // between attempts to delete a claim
)

// claimFolder is where a claim's volumes are, below the state folder. A claim that cannot name one is invalid.
func claimFolder(claim string) (string, error) {
	framework, name, ok := strings.Cut(claim, "/")
	if !ok || !safeFile(framework) || !safeFile(name) {
		return "", fmt.Errorf("claim %.200q cannot name a folder: %w", claim, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(volumesFolder, framework, name), nil
}

// safeFile reports whether s can name a file as it is.
func safeFile(s string) bool { return safeName(kernel.TaskID("f"+s)) && s != "" && s[0] != '.' }

// mountVolumes has the volumes of the group's claim be there, and answers with where, by name.
func (g *group) mountVolumes(ctx context.Context) (map[string]string, *ending) {
	c := g.spec.Claim
	if c == nil || len(c.Volumes) == 0 {
		return nil, nil
	}
	defer g.a.claims.Lock(g.claim)()
	dir, err := claimFolder(g.claim)
	if err == nil {
		err = g.a.folder.root.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = durable.In(g.a.folder.root).Sweep(dir) // images that were being made when an agent ended
	}
	if err != nil {
		return nil, g.failed(ctx, all, fmt.Errorf("claim %s: %w", c.Name, err))
	}
	out := make(map[string]string, len(c.Volumes))
	for _, v := range c.Volumes {
		if !safeFile(v.Name) {
			return nil, g.failed(ctx, all, fmt.Errorf("volume %.200q cannot name a file: %w", v.Name, errdefs.ErrInvalidArgument))
		}
		at := filepath.Join(g.a.folder.path, dir, v.Name)
		vctx, cancel := context.WithTimeout(ctx, volumeTimeout)
		err := g.a.rt.MountVolume(vctx, at+imageExt, at, v.Bytes)
		cancel()
		if err != nil {
			return nil, g.failed(ctx, g.mounts(v.Name), fmt.Errorf("volume %s of claim %s: %w", v.Name, c.Name, err))
		}
		out[v.Name] = at
	}
	return out, nil
}

// mounts is the first task that mounts a volume of the claim, all if none does.
func (g *group) mounts(volume string) int {
	for i := range g.spec.Tasks {
		for _, v := range g.spec.Tasks[i].Volumes {
			if v.Claimed == volume {
				return i
			}
		}
	}
	return all
}

// unmountVolumes takes the volumes of the group's claim from where they were mounted; their content stays.
func (g *group) unmountVolumes(ctx context.Context) error {
	if g.claim == "" {
		return nil
	}
	dir, err := claimFolder(g.claim)
	if err != nil {
		return nil //nolint:nilerr // none was mounted
	}
	defer g.a.claims.Lock(g.claim)()
	return g.a.unmountBelow(ctx, filepath.Join(g.a.folder.path, dir))
}

func (a *Agent) unmountBelow(ctx context.Context, dir string) error {
	mounted, err := call(ctx, a, func(ctx context.Context) ([]string, error) { return a.rt.Mounted(ctx, dir) })
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range mounted {
		_, err := call(ctx, a, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.rt.Unmount(ctx, at) })
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// claimedLocked reports whether a group here may use a claim.
func (a *Agent) claimedLocked(claim string) bool {
	for _, g := range a.groups {
		if g.claim != claim {
			continue
		}
		select {
		case <-g.over:
		default:
			return true
		}
	}
	return false
}

func (a *Agent) claimed(claim string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.claimedLocked(claim)
}

// toRelease has claims be deleted. The master says it in each session until it has the answer, so it is kept in memory only.
func (a *Agent) toRelease(claims []string) {
	a.mu.Lock()
	for _, c := range claims {
		a.release[c] = true
	}
	a.mu.Unlock()
	a.pokeReleases()
}

func (a *Agent) pokeReleases() {
	select {
	case a.releases <- struct{}{}:
	default:
	}
}

// releaseClaims deletes the claims that are to be, each as soon as no group here uses it, and answers.
func (a *Agent) releaseClaims(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.releases:
		}
		a.mu.Lock()
		var todo []string
		for c := range a.release {
			todo = append(todo, c)
		}
		a.mu.Unlock()
		failed := false
		for _, c := range todo {
			done, err := a.deleteClaim(ctx, c)
			if err != nil && ctx.Err() == nil {
				a.log.Error("claim cannot be deleted, trying again", "claim", c, "err", err)
				failed = true
			}
			if done {
				a.released(c)
			}
		}
		if failed && pause(ctx, releaseRetry) {
			a.pokeReleases()
		}
	}
}

// released tells the master that nothing is left of a claim.
func (a *Agent) released(claim string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.release, claim)
	if a.live != nil {
		a.live.released = append(a.live.released, claim)
		a.live.poke()
	}
}

// deleteClaim deletes a claim's volumes, unless a group uses them. A claim that was never here is done.
func (a *Agent) deleteClaim(ctx context.Context, claim string) (done bool, err error) {
	dir, err := claimFolder(claim)
	if err != nil {
		a.log.Warn("claim that cannot be here is told as released", "claim", claim, "err", err)
		return true, nil
	}
	defer a.claims.Lock(claim)()
	if a.claimed(claim) {
		return false, nil // its end asks again
	}
	if _, err := a.folder.root.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err := a.unmountBelow(ctx, filepath.Join(a.folder.path, dir)); err != nil {
		return false, err
	}
	if err := a.folder.root.RemoveAll(dir); err != nil {
		return false, fmt.Errorf("claim %s: %w", claim, err)
	}
	_ = a.folder.root.Remove(filepath.Dir(dir)) // not while the framework has others
	a.log.Info("claim deleted", "claim", claim)
	return true, nil
}

// Unmount takes away everything that an agent with this configuration has mounted: before its folder is removed, when no
// agent runs on it and no container is left. Volumes keep their content.
func Unmount(ctx context.Context, s runtime.Storage, cfg Config) error {
	run := cfg.Run
	if run == "" {
		run = filepath.Join(cfg.State, "run")
	}
	var errs []error
	for _, below := range []string{filepath.Join(cfg.State, volumesFolder), run} {
		mounted, err := s.Mounted(ctx, below)
		errs = append(errs, err)
		for _, at := range mounted {
			errs = append(errs, s.Unmount(ctx, at))
		}
	}
	return errors.Join(errs...)
}

// unmountUnknown takes away what is mounted for groups that are not here.
func (a *Agent) unmountUnknown(ctx context.Context) error {
	top := filepath.Join(a.folder.path, volumesFolder)
	volumes, err := call(ctx, a, func(ctx context.Context) ([]string, error) { return a.rt.Mounted(ctx, top) })
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range volumes {
		rel, err := filepath.Rel(top, filepath.Dir(at))
		if err != nil || a.claimed(rel) {
			continue
		}
		errs = append(errs, func() error {
			defer a.claims.Lock(rel)()
			if a.claimed(rel) { // a group that began meanwhile is there before it mounts
				return nil
			}
			a.log.Warn("volume that nobody uses is unmounted", "claim", rel)
			return a.unmountBelow(ctx, filepath.Dir(at))
		}())
	}
	return errors.Join(append(errs, a.dropUnknownFiles(ctx))...)
}
