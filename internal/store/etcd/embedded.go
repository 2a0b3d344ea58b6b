package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/store"
)

const (
	// walSegmentBytes is the size of a log file; etcd preallocates two. A file ends after the entry that fills it, so
	// this may be smaller than an entry.
	walSegmentBytes = 16 << 20

	// maxRequestBytes is etcd's limit on one encoded request: a transaction, and space for what Txn.Bytes does not count.
	maxRequestBytes = store.MaxTxnBytes + 2<<20

	// snapshotEntries is the number of log entries between snapshots, and so the most that a start replays. The snapshot
	// of a v3 member is a few hundred bytes and a database commit.
	snapshotEntries = 5000

	// slowApply is the time to apply a transaction from which on etcd warns: a full one takes a tenth of it.
	slowApply = time.Second

	// catchUpEntries is the number of log entries in memory for a slow follower, beside the last hundred. A member alone
	// has no follower, and an entry may have megabytes. Zero would mean etcd's default.
	catchUpEntries = 1
)

func init() {
	// A variable of the library, read when a log is made or opened: 32 MiB preallocated instead of 128.
	wal.SegmentSizeBytes = walSegmentBytes
}

// OpenEmbedded starts the member of cfg.Dir, creates one if there is none, and returns when it serves. Kinds of
// errors: errdefs.ErrFailedPrecondition when another process has the directory, errdefs.ErrResourceExhausted when its
// filesystem is full, errdefs.ErrUnavailable when the member did not get ready in time. ctx bounds the start only.
func OpenEmbedded(ctx context.Context, cfg Embedded) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd: data directory: %w", err)
	}
	lock, err := lockDir(ctx, cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := checkFree(cfg.Dir, cfg.MinFreeBytes); err != nil {
		lock.Close()
		return nil, err
	}
	log := newCore(cfg.Log)
	server, err := startServer(ctx, cfg, serverConfig(cfg, log))
	if err != nil {
		lock.Close()
		return nil, err
	}
	client := v3client.New(server.Server)
	s := &Store{
		prefix:  defaultPrefix,
		ttl:     cfg.LeaseTTL,
		timeout: cfg.Timeout,
		drain:   cfg.CloseTimeout,
		kv:      client.KV,
		watcher: client.Watcher,
		lease:   adapter.LeaseServerToLeaseClient(v3rpc.NewQuotaLeaseServer(server.Server)),
		upkeep:  client.Maintenance,
		members: []string{""},
		quota:   cfg.QuotaBytes,
		// the client's own would panic in process
		defrag:    func(context.Context) error { return server.Server.Backend().Defrag() },
		checkDisk: func() error { return checkFree(cfg.Dir, cfg.MinFreeBytes) },
		stop: func() error {
			defer lock.Close()
			log.closing.Store(true)
			return errors.Join(ignoreCanceled(client.Close()), closeServer(server, cfg.CloseTimeout))
		},
	}
	s.startLife()
	return s, nil
}

// startServer starts etcd and waits until it serves.
func startServer(ctx context.Context, cfg Embedded, ec *embed.Config) (*embed.Etcd, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	server, err := embed.StartEtcd(ec)
	if errors.Is(err, unix.ENOSPC) {
		return nil, fmt.Errorf("etcd: start in %s: free space on its filesystem: %w: %w",
			cfg.Dir, errdefs.ErrResourceExhausted, err)
	}
	if err != nil {
		return nil, fmt.Errorf("etcd: start in %s: %w", cfg.Dir, err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case err = <-server.Err():
		err = fmt.Errorf("etcd: start in %s: %w", cfg.Dir, err)
	case <-server.Server.StopNotify():
		err = fmt.Errorf("etcd: start in %s: the member stopped, see its log: %w", cfg.Dir, errdefs.ErrUnavailable)
	case <-ctx.Done():
		err = fmt.Errorf("etcd: start in %s: not ready within %v: %w: %w",
			cfg.Dir, cfg.StartTimeout, errdefs.ErrUnavailable, context.Cause(ctx))
	}
	return nil, errors.Join(err, closeServer(server, cfg.CloseTimeout))
}

func serverConfig(cfg Embedded, log *core) *embed.Config {
	ec := embed.NewConfig()
	ec.Name = cfg.Name
	ec.Dir = filepath.Join(cfg.Dir, "etcd")
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(log))
	ec.LogLevel = "warn"

	// A member alone listens for no peer. The advertised URL identifies a member; it changes when peers come.
	ec.ListenPeerUrls = nil
	ec.InitialCluster = ec.Name + "=" + ec.AdvertisePeerUrls[0].String()
	ec.InitialClusterToken = rand.Text() // counts only when the member is made
	ec.ListenClientUrls, ec.AdvertiseClientUrls = nil, nil
	if cfg.ClientSocket != "" {
		u := url.URL{Scheme: "unix", Path: cfg.ClientSocket}
		ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
	}

	ec.WarningApplyDuration = slowApply
	ec.MaxTxnOps = store.MaxTxnOps
	ec.MaxRequestBytes = maxRequestBytes
	ec.QuotaBackendBytes = hardQuota(cfg)
	ec.AutoCompactionMode = embed.CompactorModePeriodic
	ec.AutoCompactionRetention = cfg.CompactAfter.String()
	ec.SnapshotCount = snapshotEntries
	ec.SnapshotCatchUpEntries = catchUpEntries
	ec.MaxSnapFiles, ec.MaxWalFiles = 2, 2
	return ec
}

// hardQuota is the size at which etcd itself refuses writes, and leases with them. It cannot be changed while the
// member runs, and a member at its quota cannot be helped: hence there is always room above what is there at a start.
func hardQuota(cfg Embedded) int64 {
	size := int64(0)
	if i, err := os.Stat(filepath.Join(cfg.Dir, "etcd", "member", "snap", "db")); err == nil {
		size = i.Size()
	}
	return max(cfg.QuotaBytes, size) + cfg.QuotaBytes/4
}

// closeServer stops etcd and waits for it at most limit.
func closeServer(server *embed.Etcd, limit time.Duration) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Close()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("etcd: the member did not stop within %v: %w", limit, errdefs.ErrUnavailable)
	}
}

// lockDir locks the data directory for this process, until the lock is closed.
func lockDir(ctx context.Context, dir string) (*durable.Lock, error) {
	path := filepath.Join(dir, "lock")
	lock, err := durable.TakeLock(ctx, path)
	if errdefs.IsUnavailable(err) {
		return nil, fmt.Errorf(
			"etcd: data directory %s is in use by process %d: stop it or choose another state directory: %w",
			dir, durable.Holder(path), errdefs.ErrFailedPrecondition)
	}
	if err == nil {
		if err = lock.WritePID(); err != nil {
			lock.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("etcd: lock %s: %w", path, err)
	}
	return lock, nil
}

// checkFree returns an errdefs.ErrResourceExhausted when dir's filesystem has less than least bytes free.
func checkFree(dir string, least int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("etcd: free space of %s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < least {
		return fmt.Errorf("etcd: the filesystem of %s has %d MiB free, at least %d are needed: free some: %w",
			dir, free>>20, least>>20, errdefs.ErrResourceExhausted)
	}
	return nil
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
