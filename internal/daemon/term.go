package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/identity/ca"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes"
	kubernetesapi "github.com/marinaos/marina/internal/kubernetes/api"
	"github.com/marinaos/marina/internal/master"
	"github.com/marinaos/marina/internal/services"
	"github.com/marinaos/marina/internal/services/api"
	"github.com/marinaos/marina/internal/store"
)

// term holds what lives as long as one leadership.
type term struct {
	leadership *store.Leadership
	master     *master.Master
	schedulers []scheduler
	services   *services.Services   // one of them, for who is seen under /service
	clusters   *kubernetes.Clusters // one of them, for agents' secrets
}

// scheduler decides, as long as the term lasts, how many there should be of something.
type scheduler struct {
	name    string // of its unit in health, and of its routes in routes.go
	run     func(context.Context) error
	handler http.Handler
	alarms  func() []kernel.Alarm
	ready   func() bool // everything is loaded, and requests are answered
}

// scheduler finds one by its name.
func (t *term) scheduler(name string) scheduler {
	return t.schedulers[slices.IndexFunc(t.schedulers, func(s scheduler) bool { return s.name == name })]
}

// lead campaigns and leads, again and again, until ctx ends.
func (d *daemon) lead(ctx context.Context) error {
	for ctx.Err() == nil {
		err := d.oneTerm(ctx)
		if ctx.Err() != nil {
			break
		}
		d.log.Error("term ended, campaigning again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryTerm):
		}
	}
	return context.Cause(ctx)
}

func (d *daemon) oneTerm(ctx context.Context) error {
	name, err := d.config.agentID()
	if err != nil {
		return err
	}
	if err := d.deposePredecessor(ctx, name); err != nil {
		return err
	}
	l, err := d.store.Campaign(ctx, election, name)
	if err != nil {
		return err
	}
	defer func() { // hands over at once, also when the process ends
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := l.Resign(last); err != nil {
			d.log.Warn("leadership not handed over", "err", err)
		}
	}()
	listener, err := net.Listen("tcp", d.config.AgentPort)
	if err != nil {
		return fmt.Errorf("agent port: %w", err)
	}
	t := d.newTerm(l, listener, name)
	g, running := errgroup.WithContext(l.Context())
	g.Go(func() error { return t.master.Run(running) })
	for _, s := range t.schedulers {
		g.Go(func() error { return s.run(running) })
	}
	d.term.Store(t)
	defer d.term.Store(nil)
	return g.Wait()
}

// newTerm builds the master and the schedulers of a leadership, and starts nothing.
func (d *daemon) newTerm(l *store.Leadership, listener net.Listener, name string) *term {
	c, t := d.config, &term{leadership: l}
	t.master = master.New(master.Config{Pool: c.pool, VIPs: c.vips, Strategy: kernel.Strategy(c.Placement)}, master.Deps{
		Store: d.store, Leadership: l, Log: d.log, Metrics: d.metrics,
		Listener: listener, TLS: d.agentTLS(name), AgentID: d.agentOf, Handler: d.agentHandler(),
	})
	t.services = services.New(services.Config{
		Kernel: t.master, Store: d.store, Fence: l.Fence(), Log: d.log, Metrics: d.metrics, Admit: d.upkeep.Admit,
		Leader: reachable(c.HTTPS, c.address), VIPs: c.vips, HostVolumes: append([]string{}, c.HostVolume...),
	})
	t.clusters = kubernetes.New(kubernetes.Config{
		Kernel: t.master, Store: d.store, Fence: l.Fence(), Root: d.root, Log: d.log, Metrics: d.metrics,
		Admit: d.upkeep.Admit, Pool: c.pool, VIPs: c.vips, Publish: c.published(), Images: c.path("kubernetes"),
		Machine: []string{c.Hostname},
		Quotas:  t.master.Quotas, Exec: t.taskExec, Usage: t.taskUsage,
	})
	t.schedulers = []scheduler{
		{"services", t.services.Run, api.New(t.services, d.access), t.services.Alarms, t.services.Leading},
		{"kubernetes", t.clusters.Run, kubernetesapi.New(t.clusters, d.access, d.log), t.clusters.Alarms, t.clusters.Leading},
	}
	return t
}

// deposePredecessor ends the leadership of an earlier process of this very state directory. Its lock is ours, so it is
// dead, and waiting for its lease would only cost time; were it not, its writes would fail by the fence.
func (d *daemon) deposePredecessor(ctx context.Context, name string) error {
	key := store.LeaderKey(election)
	item, err := d.store.Get(ctx, key)
	if errdefs.IsNotFound(err) || err == nil && string(item.Value) != name {
		return nil
	}
	if err != nil {
		return fmt.Errorf("election: %w", err)
	}
	_, err = d.store.Commit(ctx, store.Txn{Guards: []store.Guard{store.Unchanged(key, item.Revision)},
		Ops: []store.Op{store.Delete(key)}})
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("election: %w", err)
	}
	return nil
}

// agentTLS is for the listener that agents dial: certificates on both sides.
func (d *daemon) agentTLS(name string) *tls.Config {
	dns, ips := ca.Hosts("localhost", "127.0.0.1", d.config.Hostname, d.config.address.String())
	source := d.authority.ServerSource(d.log, name, dns, ips)
	return ca.ServerTLS(source, d.authority.Pool(), d.authority.Datacenter(), ca.Agent)
}

// agentOf tells which agent is at the other end.
func (d *daemon) agentOf(cs tls.ConnectionState) (kernel.AgentID, error) {
	s, err := ca.Peer(cs, d.authority.Datacenter(), ca.Agent)
	return kernel.AgentID(s.ID), err
}

// fence guards writes of what is not of a term but only leaders may do.
func (d *daemon) fence() (store.Guard, error) {
	t := d.term.Load()
	if t == nil {
		return store.Guard{}, fmt.Errorf("this process does not lead: %w", errdefs.ErrUnavailable)
	}
	return t.leadership.Fence(), nil
}

// leading passes requests to the present term, and answers 503 when there is none.
func (d *daemon) leading(h func(*term) http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := d.term.Load()
		if t == nil {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, `{"message":"The datacenter has no leader at the moment: try again in a second."}`)
			return
		}
		h(t).ServeHTTP(w, r)
	})
}
