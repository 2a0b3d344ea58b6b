package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/audit"
	"github.com/marinaos/marina/internal/daemon/heap"
	"github.com/marinaos/marina/internal/gateway"
	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/images"
	host "github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/settings"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/etcd"
	"github.com/marinaos/marina/internal/store/upkeep"
)

// election names the masters' election.
const election = "master"

// daemon is the process of a master: what lives as long as it does. What lives as long as a leadership is a term.
type daemon struct {
	config    *config
	log       *slog.Logger
	build     string // of this binary
	store     *etcd.Store
	upkeep    *upkeep.Keeper
	root      *identity.RootKey
	authority *ca.Authority
	identity  *identity.Directory
	images    *images.Images
	audit     *audit.Log
	metrics   *metrics.Registry
	access    access.Authorizer
	term      atomic.Pointer[term] // nil while this process does not lead
}

// Run is the daemon: it runs until ctx ends, and leaves agent and tasks running.
func Run(ctx context.Context, cfg settings.Datacenter) error {
	c, err := resolve(cfg)
	if err != nil {
		return err
	}
	log := c.logger()
	host.RaiseOpenFiles(log)
	heap.Tighten()
	release, err := c.writePID(ctx, c.daemonPID())
	if err != nil {
		return err
	}
	defer release()
	if err := c.keepRanges(); err != nil {
		return err
	}
	d := &daemon{config: c, log: log, build: Build(), metrics: metrics.New(Version), access: access.Administrators{}}
	if d.audit, err = audit.Open(audit.Config{Dir: c.path("audit"), Log: log}); err != nil {
		return err
	}
	defer d.audit.Close()
	if d.store, err = c.openStore(ctx, log); err != nil {
		return err
	}
	defer func() {
		if err := d.store.Close(); err != nil {
			log.Warn("store did not close", "err", err)
		}
	}()
	if err := d.open(ctx); err != nil {
		return err
	}
	return d.run(ctx)
}

func (c *config) openStore(ctx context.Context, log *slog.Logger) (*etcd.Store, error) {
	if len(c.Etcd) > 0 {
		return etcd.OpenExternal(ctx, etcd.External{Endpoints: c.Etcd, CAFile: c.EtcdCA, CertFile: c.EtcdCert,
			KeyFile: c.EtcdKey, Log: log})
	}
	return etcd.OpenEmbedded(ctx, etcd.Embedded{Dir: c.path("etcd"), QuotaBytes: int64(c.StoreQuota) << 20, Log: log})
}

// removable lists the tables of which people can delete when the store is full.
var removable = []upkeep.Table{
	{Prefix: store.Prefix("versions"), Noun: "versions of apps"}, {Prefix: store.Prefix("apps"), Noun: "apps"},
	{Prefix: store.Prefix("kubernetes", "clusters"), Noun: "clusters"},
	{Prefix: store.Prefix("identity", "tokens"), Noun: "tokens"}, {Prefix: store.Prefix("images"), Noun: "images"},
}

// open builds what does not depend on leadership.
func (d *daemon) open(ctx context.Context) error {
	if err := store.CheckFormat(ctx, d.store); err != nil {
		return err
	}
	d.upkeep = upkeep.New(upkeep.Config{Store: d.store, Shared: len(d.config.Etcd) > 0, Tables: removable, Log: d.log,
		Metrics: d.metrics})
	if err := d.upkeep.Open(ctx); err != nil { // before anything is written, and before anybody can lead
		return err
	}
	id, err := d.datacenterID(ctx)
	if err != nil {
		return err
	}
	root, err := identity.LoadRootKey(d.config.rootKey())
	if err != nil {
		return err
	}
	d.root = root
	if d.authority, err = ca.Open(ctx, d.store, root, id); err != nil {
		return err
	}
	if err := d.config.writeDatacenter(id, d.authority.CertPEM()); err != nil {
		return err
	}
	if d.identity, err = identity.Open(ctx, identity.Config{Datacenter: id, Access: d.access, Audit: d.audit}, d.store,
		root, d.log); err != nil {
		return err
	}
	d.images, err = images.New(d.config.path("images"), d.store, d.fence, d.log)
	return err
}

// datacenterID names the datacenter for good: drawn at the first start, kept in the store.
func (d *daemon) datacenterID(ctx context.Context) (string, error) {
	id, err := store.Once(ctx, d.store, store.Key("datacenter"), uuid.NewString)
	if err != nil {
		return "", fmt.Errorf("datacenter id: %w", err)
	}
	return id, nil
}

func (d *daemon) run(ctx context.Context) error {
	gw, err := d.gateway()
	if err != nil {
		return err
	}
	d.metrics.GaugeFunc("marina_alarms", "Parts of the datacenter that were set aside until somebody acts.", d.alarms)
	d.metrics.GaugeFunc("marina_leading", "1 while this process leads.", func() float64 {
		if d.term.Load() == nil {
			return 0
		}
		return 1
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(ctx, d.audit.Run(ctx)) })
	g.Go(func() error { return ended(ctx, d.upkeep.Run(ctx)) })
	g.Go(func() error { return ended(ctx, d.identity.Run(ctx)) })
	g.Go(func() error { return ended(ctx, d.identity.ServeSocket(ctx, d.config.socket(), d.adminHandler())) })
	g.Go(func() error { return ended(ctx, gw.Run(ctx)) })
	g.Go(func() error { return ended(ctx, d.lead(ctx)) })
	g.Go(func() error { return ended(ctx, d.config.keepAgent(ctx, d.build+d.config.fingerprint(), d.log)) })
	return g.Wait()
}

func (d *daemon) gateway() (*gateway.Gateway, error) {
	host, _, _ := net.SplitHostPort(d.config.HTTPS)
	dns, ips := ca.Hosts("localhost", "127.0.0.1", d.config.Hostname, d.config.address.String(), host)
	source := d.authority.ServerSource(d.log, d.config.Hostname, dns, ips)
	plain := d.config.HTTP
	if plain == settings.Off {
		plain = "-"
	}
	conf := ca.ServerTLS(source, d.authority.Pool(), d.authority.Datacenter())
	return gateway.New(gateway.Config{HTTPS: d.config.HTTPS, HTTP: plain, TLS: conf},
		gateway.Deps{Identity: d.identity, Routes: d.routes(), Services: d, Health: d, Info: d.info(), Log: d.log,
			Access: d.access, Audit: d.audit, Metrics: d.metrics})
}

// master returns the address that this machine's agent dials.
func (c *config) master() string {
	host, port := split(c.AgentPort)
	if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
		return netip.AddrPortFrom(a, port).String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String()
}

func split(listen string) (host string, port uint16) {
	h, p, err := net.SplitHostPort(listen)
	if err != nil {
		return listen, 0
	}
	n, _ := strconv.ParseUint(p, 10, 16)
	return h, uint16(n)
}

// Build names the running binary by its content, so that a new one is told from the one that runs.
func Build() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return Version
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return Version
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// retryTerm is the pause before a daemon campaigns again after a term that failed.
const retryTerm = time.Second
