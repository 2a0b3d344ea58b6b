package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/dialer"
	"github.com/containerd/errdefs"
	containerdlog "github.com/containerd/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
	"github.com/marinaos/marina/internal/runtime/containerd/cgroup"
	"github.com/marinaos/marina/internal/runtime/containerd/daemon"
	"github.com/marinaos/marina/internal/runtime/containerd/image"
	"github.com/marinaos/marina/internal/runtime/containerd/spec"
	"github.com/marinaos/marina/internal/runtime/containerd/storage"
)

const (
	callTimeout   = 30 * time.Second // one step of making or removing a container
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

// Runtime is a runtime.Runtime on containerd and runc. Make it with New, and have Run running while it is used.
type Runtime struct {
	storage.Mounts

	cfg     Config
	log     *slog.Logger
	client  *containerd.Client // one for good: it reconnects by itself
	daemon  *daemon.Daemon
	images  *image.Images
	cgroups *cgroup.Tree
	ids     *spec.IDs
	fresh   sync.Map      // ids of containers being made, which have no process yet
	limit   time.Duration // callTimeout, shorter in tests

	ready     chan struct{} // closed once containerd answered
	readyOnce sync.Once
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
	r := &Runtime{cfg: cfg, log: log, ready: make(chan struct{}), limit: callTimeout}
	var because error
	if r.ids, because = spec.NewIDs(cfg.IDBase, cfg.NoUserNamespaces); because != nil {
		log.Warn("containers run with the machine's own user ids", "because", because)
	}
	if r.cgroups, err = cgroup.Open(cfg.cgroup()); err != nil {
		return nil, err
	}
	if r.daemon, err = daemon.New(ctx, cfg.daemon(), r.version, log); err != nil {
		return nil, err
	}
	if r.client, err = connect(&cfg); err != nil {
		return nil, fmt.Errorf("containerd client: %w", err)
	}
	r.images = image.New(r.client, r.Ready, cfg.Store)
	return r, nil
}

// connect returns a client of the containerd at the socket, whether that runs yet or not.
func connect(cfg *Config) (*containerd.Client, error) {
	if err := containerdlog.SetLevel("error"); err != nil { // its own words; what matters comes back as errors
		return nil, err
	}
	b := backoff.DefaultConfig
	b.BaseDelay, b.MaxDelay = 50*time.Millisecond, maxReconnect
	return containerd.New(cfg.socket(), containerd.WithDefaultNamespace(cfg.namespace()),
		containerd.WithDefaultRuntime(runtimeName),
		containerd.WithDialOpts([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket of root's
			grpc.WithContextDialer(dialer.ContextDialer),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: b, MinConnectTimeout: maxReconnect}),
			grpc.WithDefaultServiceConfig(retryReads),
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true),
				grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
				grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)),
		}))
}

// version asks the containerd at the socket for its version.
func (r *Runtime) version(ctx context.Context) (string, error) {
	v, err := r.client.Version(ctx)
	return v.Version, err
}

// Run keeps the private containerd running until ctx ends, and leaves it running then: containers and containerd
// outlive the agent. With an external containerd it only waits. It returns nil when ctx ended.
func (r *Runtime) Run(ctx context.Context) error {
	if err := r.cfg.makeDirs(); err != nil {
		return err
	}
	if err := tempMounts(r.cfg.mounts()); err != nil {
		return err
	}
	return r.daemon.Run(ctx, r.markReady)
}

// Pull makes an image present and unpacked; see runtime.Runtime and image.Images.
func (r *Runtime) Pull(ctx context.Context, ref string, fresh bool) error {
	return r.images.Pull(ctx, ref, fresh)
}

// IDs is the datacenter's range, which containers share that have none of their own.
func (r *Runtime) IDs() kernel.IDRange { return r.ids.Shared() }

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
func (r *Runtime) Down(ctx context.Context) error { return r.daemon.Stop(ctx) }

// RemoveAll takes away everything a runtime with this configuration ever made: containers, images, the private
// containerd, its directories, mounts and cgroups. It starts containerd if that is what it takes. Run must have
// returned.
func (r *Runtime) RemoveAll(ctx context.Context) error {
	if err := r.cfg.makeDirs(); err != nil {
		return err
	}
	if _, err := os.Stat(r.cfg.root()); err == nil {
		if err := r.daemon.Start(ctx); err != nil {
			return err
		}
	}
	var errs []error
	if _, err := os.Stat(r.cfg.socket()); err == nil {
		errs = append(errs, r.removeContainers(ctx))
		if r.cfg.Socket != "" {
			errs = append(errs, r.images.RemoveAll(ctx))
		}
	}
	if err := errors.Join(append(errs, r.Down(ctx))...); err != nil {
		return err // what still runs needs its directories
	}
	if err := r.daemon.KillForgotten(ctx, ""); err != nil {
		return err
	}
	return errors.Join(r.cgroups.Remove(ctx, ""), storage.RemoveAll(r.cfg.Run), storage.RemoveAll(r.cfg.State))
}

// removeContainers removes the containers that containerd knows of.
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
