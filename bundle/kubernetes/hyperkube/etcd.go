package hyperkube

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/pkg/v3/flags"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// Etcd's defaults are for one big cluster on a machine; these are for many small ones.
const (
	walSegment   = 4 << 20   // bytes; two are allocated ahead: 8 MB a cluster instead of 128
	snapshot     = 2000      // transactions; the log of these is in memory
	catchUp      = 500       // transactions kept behind a snapshot for a slow member
	quotaBackend = 512 << 20 // bytes; etcd then raises an alarm and refuses writes
)

// etcdConfig makes the configuration of the cluster's only member; args may make it one of several.
func etcdConfig(c *config) (*embed.Config, error) {
	wal.SegmentSizeBytes = walSegment
	e := embed.NewConfig()
	e.Name = "control-plane"
	e.Dir = filepath.Join(c.dataDir, "etcd")
	e.SnapshotCount, e.SnapshotCatchUpEntries = snapshot, catchUp
	e.QuotaBackendBytes = quotaBackend
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

// runEtcd serves until ctx ends, and closes ready when it can be written to.
func runEtcd(ctx context.Context, cfg *embed.Config, ready func()) error {
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
			ready()
			become = nil
		}
	}
}
