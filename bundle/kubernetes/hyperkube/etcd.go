package hyperkube

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/flags"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/etcdroom"
)

// Etcd's defaults are for one big cluster on a machine; these are for many small ones.
const (
	walSegment = 4 << 20 // bytes; two are allocated ahead: 8 MB a cluster instead of 128
	snapshot   = 2000    // transactions; the log of these is in memory
	catchUp    = 500     // transactions kept behind a snapshot for a slow member
	lookEvery  = 10 * time.Second
)

// etcdConfig makes the configuration of the cluster's only member; args may make it one of several.
func etcdConfig(c *config) (*embed.Config, error) {
	wal.SegmentSizeBytes = walSegment
	e := embed.NewConfig()
	e.Name = "control-plane"
	e.Dir = filepath.Join(c.dataDir, "etcd")
	e.SnapshotCount, e.SnapshotCatchUpEntries = snapshot, catchUp
	e.QuotaBackendBytes = etcdroom.Quota(sizeOf(filepath.Dir(c.dataDir)))
	e.EnableGRPCGateway = false // HTTP/JSON beside gRPC, which nobody here speaks

	// Nobody asks an only member for the addresses it advertises: those stay etcd's defaults. Of a peer's listening
	// address etcd takes the host alone; a path there would leave it on a socket without a file, which everybody in the
	// network namespace can reach.
	client := []url.URL{{Scheme: "unix", Path: c.etcdSocket()}}
	e.ListenClientUrls = client
	e.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: filepath.Join(c.runDir, "peer.sock")}}

	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	e.AddFlags(fs)
	e.LogLevel = "warn" // adding the flag set it
	if err := fs.Parse(c.etcdArgs); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("--etcd-arg=%s: expected --NAME=VALUE", fs.Arg(0))
	}
	// Etcd's own main reads these from the flags, and so must whoever embeds it.
	fs.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "listen-client-urls":
			e.ListenClientUrls = append(flags.UniqueURLsFromFlag(fs, f.Name), client...)
		case "advertise-client-urls":
			e.AdvertiseClientUrls = flags.UniqueURLsFromFlag(fs, f.Name)
		case "listen-peer-urls":
			e.ListenPeerUrls = flags.UniqueURLsFromFlag(fs, f.Name)
		case "initial-advertise-peer-urls":
			e.AdvertisePeerUrls = flags.UniqueURLsFromFlag(fs, f.Name)
		case "listen-metrics-urls":
			e.ListenMetricsUrls = flags.UniqueURLsFromFlag(fs, f.Name)
		}
	})
	if f := fs.Lookup("initial-cluster"); f.Value.String() == f.DefValue {
		e.InitialCluster = e.InitialClusterFromName(e.Name)
	}
	return e, nil
}

// sizeOf returns the size of a directory's filesystem, in bytes; zero if it cannot be told.
func sizeOf(dir string) int64 {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return 0
	}
	return int64(fs.Blocks) * fs.Bsize
}

// member is the etcd of this process, for etcdroom.
type member struct{ server *etcdserver.EtcdServer }

// Space implements etcdroom.Member.
func (m member) Space() (size, used int64, refuses bool) {
	for _, a := range m.server.Alarms() {
		refuses = refuses || a.Alarm == pb.AlarmType_NOSPACE
	}
	b := m.server.Backend()
	return b.Size(), b.SizeInUse(), refuses
}

// Compact implements etcdroom.Member.
func (m member) Compact(ctx context.Context) error {
	_, err := m.server.Compact(ctx, &pb.CompactionRequest{Revision: m.server.KV().Rev(), Physical: true})
	if errors.Is(err, mvcc.ErrCompacted) {
		return nil
	}
	return err
}

// Defrag implements etcdroom.Member.
func (m member) Defrag() error { return m.server.Backend().Defrag() }

// Disarm implements etcdroom.Member.
func (m member) Disarm(ctx context.Context) error {
	_, err := m.server.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE,
		MemberID: uint64(m.server.MemberID()), Alarm: pb.AlarmType_NOSPACE})
	return err
}

// runEtcd serves until ctx ends, and closes ready when it can be written to.
func runEtcd(ctx context.Context, cfg *embed.Config, ready func(member)) error {
	for _, u := range append(cfg.ListenClientUrls, cfg.ListenPeerUrls...) {
		if u.Scheme == "unix" { // left by a process that was killed
			if err := os.Remove(u.Host + u.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	keeping, enough := context.WithCancel(ctx)
	kept := make(chan struct{})
	defer func() { enough(); <-kept }() // before it is closed
	go func() {
		defer close(kept)
		etcdroom.Keep(keeping, member{e.Server}, cfg.QuotaBackendBytes, lookEvery,
			slog.New(logr.ToSlogHandler(klog.Background())))
	}()
	become := e.Server.ReadyNotify()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-e.Err():
			return err
		case <-e.Server.StopNotify():
			return errors.New("stopped by itself")
		case <-become:
			ready(member{e.Server})
			become = nil
		}
	}
}
