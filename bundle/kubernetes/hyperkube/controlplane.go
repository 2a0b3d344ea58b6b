package hyperkube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	restclient "k8s.io/client-go/rest"
	"k8s.io/component-base/logs"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/etcdroom"
	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/governor"
	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/steward"
)

// readyEvery is the pause between questions to an API server that starts.
const readyEvery = 50 * time.Millisecond

// part is a running component.
type part struct {
	name  string
	stop  context.CancelFunc
	ended chan struct{} // closed when it returned
	err   error         // why; read after ended
}

func runControlPlane() int {
	c, err := parse(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal finds nobody who catches it
	logs.InitLogs()
	err = serve(ctx, c, os.Stdout)
	logs.FlushLogs()
	if err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		return 1
	}
	return 0
}

// serve runs the control plane until ctx ends, which is no error, or a component does, which is one.
func serve(ctx context.Context, c *config, out io.Writer) error {
	if err := c.prepare(); err != nil {
		return err
	}
	if c.readyFile != "" {
		if err := os.Remove(c.readyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		defer os.Remove(c.readyFile)
	}
	restclient.SetDefaultWarningHandler(restclient.NoWarnings{}) // as each upstream component does
	etcd, err := etcdConfig(c)
	if err != nil {
		return err
	}
	o, err := newOptions(c)
	if err != nil {
		return err
	}
	governed, ungovern := context.WithCancel(context.Background())
	defer ungovern()
	go governor.Run(governed, c.gogc, c.memoryLimit)

	r := &running{ended: make(chan *part, 5)}
	err = c.bringUp(ctx, r, etcd, o, out)
	if errors.Is(err, errStopped) {
		r.stop(c.stopWithin)
		return nil
	}
	return err
}

// bringUp starts the components one after another, says when the control plane is ready, and stays until ctx or a
// component ends.
func (c *config) bringUp(ctx context.Context, r *running, etcd *embed.Config, o *options, out io.Writer) error {
	etcdReady := make(chan struct{})
	r.start("etcd", func(ctx context.Context) error {
		return runEtcd(ctx, etcd, func(m member) {
			c.problem = func() string { return etcdroom.Problem(m, etcd.QuotaBackendBytes) }
			close(etcdReady)
		})
	})
	if err := r.wait(ctx, etcdReady); err != nil {
		return err
	}
	r.start("kube-apiserver", o.runAPIServer)
	asking, enough := context.WithCancel(ctx)
	defer enough()
	apiReady, err := c.askReady(asking)
	if err != nil {
		return err
	}
	if err := r.wait(ctx, apiReady); err != nil {
		return err
	}
	r.start("kube-controller-manager", o.runControllerManager)
	r.start("kube-scheduler", o.runScheduler)
	if c.steward != nil {
		r.start("steward", c.runSteward)
	}

	line := fmt.Sprintf("ready %s %s\n", c.server(), version.Get().GitVersion)
	if c.readyFile != "" {
		if err := os.WriteFile(c.readyFile, []byte(line), 0o644); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(out, line); err != nil {
		return err
	}
	return r.wait(ctx, nil)
}

// runSteward does Marina's part inside the cluster.
func (c *config) runSteward(ctx context.Context) error {
	s, err := steward.New(c.steward, steward.Deps{PKIDir: c.pkiDir, Server: c.server(), ServerName: serverName,
		StateFile: filepath.Join(filepath.Dir(c.dataDir), "steward.json"), Version: version.Get().GitVersion,
		Problem: c.problem,
		Log:     slog.New(logr.ToSlogHandler(klog.Background()))})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// running are the components, in the order they were started.
type running struct {
	parts []*part
	ended chan *part // gets each that returned
}

func (r *running) start(name string, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	p := &part{name: name, stop: stop, ended: make(chan struct{})}
	r.parts = append(r.parts, p)
	go func() {
		p.err = run(ctx)
		close(p.ended)
		r.ended <- p
	}()
}

var errStopped = errors.New("stopped")

// wait returns nil when ready is closed, errStopped when ctx ended, and an error when a component did.
func (r *running) wait(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return errStopped
	case p := <-r.ended:
		if p.err == nil {
			return fmt.Errorf("%s: ended, though nobody stopped it", p.name)
		}
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
}

// stop ends the components, the last started first: what watches goes before what is watched. The controller-manager,
// scheduler and steward go together. Each step has a third of the time; who needs more is left behind.
func (r *running) stop(within time.Duration) {
	for len(r.parts) > 0 {
		last := r.parts[min(len(r.parts)-1, 2):]
		r.parts = r.parts[:len(r.parts)-len(last)]
		for _, p := range last {
			p.stop()
		}
		limit := time.After(within / 3)
		for _, p := range last {
			select {
			case <-p.ended:
			case <-limit:
				fmt.Fprintf(os.Stderr, "control-plane: %s: did not stop within %v, left behind\n", p.name, within/3)
				limit = time.After(0)
			}
		}
	}
}

// askReady asks the API server whether it is ready until it is or ctx ends; the channel is then closed, or left alone.
func (c *config) askReady(ctx context.Context) (<-chan struct{}, error) {
	ca, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: no certificate in it", c.pki("ca.crt"))
	}
	self, err := tls.LoadX509KeyPair(c.pki("controller-manager.crt"), c.pki("controller-manager.key"))
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: serverName,
		Certificates: []tls.Certificate{self}}}
	ready := make(chan struct{})
	go func() {
		defer tr.CloseIdleConnections()
		tick := time.NewTicker(readyEvery)
		defer tick.Stop()
		for !answersOK(ctx, tr, c.server()+"/readyz") {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		close(ready)
	}()
	return ready, nil
}

func answersOK(ctx context.Context, tr http.RoundTripper, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 16))
	return res.StatusCode == http.StatusOK && strings.HasPrefix(string(body), "ok")
}
