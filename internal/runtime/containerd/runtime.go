package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/dialer"
	"github.com/containerd/errdefs"
	containerdlog "github.com/containerd/log"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/marinaos/marina/internal/runtime"
)

const (
	callTimeout   = 30 * time.Second // one step of making or removing a container
	pullTimeout   = 15 * time.Minute // one image
	maxReconnect  = time.Second      // between two attempts to reach containerd
	removeWorkers = 8                // containers removed at a time by RemoveAll
)

// retryReads asks again when containerd ends in the middle of an answer, for what only reads.
const retryReads = `{"methodConfig": [{"name": [
	{"service": "containerd.services.containers.v1.Containers", "method": "Get"},
	{"service": "containerd.services.containers.v1.Containers", "method": "List"},
	{"service": "containerd.services.containers.v1.Containers", "method": "ListStream"},
	{"service": "containerd.services.tasks.v1.Tasks", "method": "Get"},
	{"service": "containerd.services.images.v1.Images", "method": "Get"},
	{"service": "containerd.services.version.v1.Version", "method": "Version"}],
	"retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// Runtime is an runtime.Runtime on containerd and runc. Make it with New, and have Run running while it is used.
type Runtime struct {
	cfg     Config
	log     *slog.Logger
	client  *containerd.Client       // one for good: it reconnects by itself
	version string                   // of the private containerd; "" with an external one
	unified bool                     // cgroup v2
	pulls   singleflight.Group       // by reference
	limit   time.Duration            // callTimeout, shorter in tests
	mapNS   func() (*os.File, error) // a user namespace with our mapping, to ask filesystems about

	ready     chan struct{} // closed once containerd answered
	readyOnce sync.Once

	mu     sync.Mutex
	making map[string]int  // containers being made, by cgroup parent: it may not be removed then. Guarded by mu
	fresh  map[string]bool // ids of containers being made, which have no process yet. Guarded by mu
}

var _ runtime.Runtime = (*Runtime)(nil)

// New checks the programs of the bundle, which must have no known ways out of a container
// (errdefs.ErrFailedPrecondition if they do or are missing), and returns a runtime that works once Run runs. It starts
// nothing.
func New(ctx context.Context, cfg Config, log *slog.Logger) (*Runtime, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	r := &Runtime{
		cfg: cfg, log: log, ready: make(chan struct{}), making: map[string]int{}, fresh: map[string]bool{},
		unified: cgroups.Mode() == cgroups.Unified, mapNS: sync.OnceValues(cfg.userNamespace), limit: callTimeout,
	}
	if !cfg.NoUserNamespaces {
		if _, err := r.mapNS(); err != nil {
			log.Warn("containers run with the machine's own user ids", "because", err)
			r.cfg.NoUserNamespaces = true
		}
	}
	programs := []string{"runc", "containerd"}
	if cfg.Socket != "" {
		programs = programs[:1]
	}
	for _, p := range programs {
		v, err := programVersion(ctx, cfg.Bin, p)
		if err != nil {
			return nil, err
		}
		if err := CheckFloor(p, v); err != nil {
			return nil, err
		}
		if p == "containerd" {
			r.version = v
		}
	}
	if err := containerdlog.SetLevel("error"); err != nil { // its client's own words; what matters comes back as errors
		return nil, err
	}
	b := backoff.DefaultConfig
	b.BaseDelay, b.MaxDelay = 50*time.Millisecond, maxReconnect
	r.client, err = containerd.New(cfg.socket(), containerd.WithDefaultNamespace(cfg.namespace()),
		containerd.WithDefaultRuntime("io.containerd.runc.v2"),
		containerd.WithDialOpts([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket of root's
			grpc.WithContextDialer(dialer.ContextDialer),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: b, MinConnectTimeout: maxReconnect}),
			grpc.WithDefaultServiceConfig(retryReads),
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true),
				grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
				grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)),
		}))
	if err != nil {
		return nil, fmt.Errorf("containerd client: %w", err)
	}
	return r, nil
}

var tempMount struct {
	sync.Mutex
	at string // guarded by Mutex
}

// tempMounts says where containerd's client mounts filesystems for a moment, to look into them. It is one place for a
// process, so a process has one Runtime at a time; those of an earlier process that was killed are unmounted.
func tempMounts(at string) error {
	tempMount.Lock()
	defer tempMount.Unlock()
	if tempMount.at != at {
		if err := mount.SetTempMountLocation(at); err != nil {
			return err
		}
		tempMount.at = at
	}
	_, err := mount.CleanupTempMounts(0)
	return err
}

// Close lets go of the connection. Nothing that runs is touched.
func (r *Runtime) Close() error { return r.client.Close() }

// Ready waits until containerd has answered for the first time, or ctx ends.
func (r *Runtime) Ready(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("containerd at %s does not answer: %w", r.cfg.socket(), errdefs.ErrUnavailable)
	}
}

func (r *Runtime) markReady() { r.readyOnce.Do(func() { close(r.ready) }) }

// Down stops the private containerd; containers go on. Run must have returned.
func (r *Runtime) Down(ctx context.Context) error {
	if r.cfg.Socket != "" {
		return nil
	}
	d, err := r.cfg.adopt()
	if err != nil || d == nil {
		return err
	}
	defer d.pidfd.Close()
	return d.stop(ctx)
}

// RemoveAll takes away everything a runtime with this configuration ever made: containers, images, the private
// containerd, its directories, mounts and cgroups. It starts containerd if that is what it takes. Run must have
// returned.
func (r *Runtime) RemoveAll(ctx context.Context) error {
	var errs []error
	if err := r.cfg.makeDirs(); err != nil {
		return err
	}
	if _, err := os.Stat(r.cfg.root()); err == nil && r.cfg.Socket == "" {
		d, err := r.ensure(ctx)
		if err != nil {
			return err
		}
		d.pidfd.Close()
	}
	if _, err := os.Stat(r.cfg.socket()); err == nil {
		errs = append(errs, r.removeContainers(ctx))
		if r.cfg.Socket != "" {
			errs = append(errs, r.removeImages(ctx))
		}
	}
	if err := errors.Join(append(errs, r.Down(ctx))...); err != nil {
		return err // what still runs needs its directories
	}
	if err := r.killMakers(ctx, ""); err != nil {
		return err
	}
	return errors.Join(r.removeCgroup(ctx, ""), removeDir(r.cfg.Run), removeDir(r.cfg.State))
}

// killMakers kills what may still be making a container that containerd knows nothing of, its shim and runc, and waits
// until they are gone: they make cgroups. With "" it is those of all our containers.
func (r *Runtime) killMakers(ctx context.Context, id string) error {
	shim := r.cfg.shim() + "\x00-namespace\x00" + r.cfg.namespace() + "\x00-id\x00"
	runc := r.cfg.runc() + "\x00--root\x00" + filepath.Join(r.cfg.runcRoot(), r.cfg.namespace()) + "\x00"
	for {
		pids, err := processes(func(line []byte) bool {
			return (bytes.HasPrefix(line, []byte(shim)) || bytes.HasPrefix(line, []byte(runc))) && bytes.Contains(line, []byte("\x00"+id))
		})
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			r.log.Warn("process that containerd forgot is killed", "pid", pid, "container", id)
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes do not die: %w", len(pids), ctx.Err())
		case <-time.After(killAgain):
		}
	}
}

func (r *Runtime) removeContainers(ctx context.Context) error {
	found, err := r.client.Containers(ctx)
	if err != nil {
		return fmt.Errorf("containers: %w", err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	slots := make(chan struct{}, removeWorkers)
	for _, c := range found {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.remove(ctx, c.ID()); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// removeDir unmounts what is mounted below path, deepest first, and removes it. A mount that stays is an error, and
// then nothing is removed: what lies behind a mount is not ours.
func removeDir(path string) error {
	for range 8 { // mounts may lie over each other
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return os.RemoveAll(path)
		}
		for i := len(mounts) - 1; i >= 0; i-- {
			if err := unix.Unmount(mounts[i].Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
				return fmt.Errorf("unmount %s: %w", mounts[i].Mountpoint, err)
			}
		}
	}
	return fmt.Errorf("%s has mounts that come back: %w", path, errdefs.ErrFailedPrecondition)
}
