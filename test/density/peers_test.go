package density

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// peers runs the components of a control plane as plain processes beside, with certificates that a cluster had.
type peers struct {
	program, dir string
	ports        []string // API server, controller-manager, scheduler, etcd's clients and etcd's peers
	client       *http.Client
}

// gogc is the collector's setting of idle hosted control planes.
const gogc = "20"

func newPeers(h *testbed.Datacenter, k *cluster) (*peers, error) {
	plane := k.members[0]
	if err := plane.find(); err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(h.Runtime, "../../kubernetes/v*/bin/kubernetes-v*"))
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("no program of Kubernetes beside %s: %v", h.Runtime, err)
	}
	p := &peers{program: found[len(found)-1]}
	if p.dir, err = os.MkdirTemp("/var/tmp", "peers"); err != nil { // a disk, for fsync; short, since sockets are in it
		return nil, err
	}
	if err := os.CopyFS(p.pki(""), os.DirFS(fmt.Sprintf("/proc/%d/root/etc/kubernetes/pki", plane.pid))); err != nil {
		return nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(p.dir))
		}
		defer l.Close()
		p.ports = append(p.ports, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	}
	// Three servers with certificates of their own making, all on loopback: only that they answer is asked.
	p.client = &http.Client{Timeout: 5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	return p, nil
}

func (p *peers) pki(name string) string { return filepath.Join(p.dir, "pki", name) }
func (p *peers) run(name string) string { return filepath.Join(p.dir, "run", name) }

// compare measures the control plane as one process and as four, one after the other.
func (p *peers) compare(b *testing.B, l *look, all []*cluster) {
	defer os.RemoveAll(p.dir)
	one, err := p.measure(b, p.asOne)
	if err != nil {
		b.Errorf("control plane as one process: %v", err)
		return
	}
	how := fmt.Sprintf("plain processes, no nodes, GOGC=%s, encryption at rest, %v after ready; idle over %v", gogc,
		*settleFor, *idleFor)
	row("control plane as one process, without the steward", one.String(), "180 MiB", how)
	four, err := p.measure(b, p.asFour)
	if err != nil {
		b.Errorf("control plane as four processes: %v", err)
		return
	}
	row("etcd, kube-apiserver, kube-controller-manager, kube-scheduler apart", four.String(), "",
		how+"; the same program and flags, started in the same order")
	for _, name := range four.names {
		row("  "+name, fmt.Sprintf("%.1f MiB private", four.each[name]), "", "")
	}
	var node float64
	for n, k := range all {
		u, _ := l.total(n)
		node += (u.private - l.parts[n]["control plane"].private) / float64(len(all))
		_ = k
	}
	row("whole cluster with these four in place of its control plane", fmt.Sprintf("%.1f MiB private", four.private+node),
		"", "and the nodes measured above")
}

// cost sums the use of processes.
type cost struct {
	names   []string
	each    map[string]float64 // MiB private
	private float64
	file    float64 // MiB of file pages, as parts
	cores   float64
	ready   time.Duration
}

func (c *cost) String() string {
	return fmt.Sprintf("%.1f MiB private, %.2f %% of a core idle, ready after %s", c.private, 100*c.cores, brief(c.ready))
}

// started is a running component.
type started struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	end  chan error
}

// measure starts something, lets it rest and looks at it. Everything has ended when it returns.
func (p *peers) measure(b *testing.B, start func(*[]*started) error) (*cost, error) {
	var running []*started
	defer func() {
		for i := len(running) - 1; i >= 0; i-- {
			running[i].stop()
		}
	}()
	begin := time.Now()
	if err := start(&running); err != nil {
		return nil, err
	}
	c := &cost{ready: time.Since(begin), each: map[string]float64{}}
	rest(b, *settleFor)
	mine := func() map[int]*process {
		pids := map[int]bool{}
		for _, s := range running {
			pids[s.cmd.Process.Pid] = true
		}
		return processes(func(q *process) bool { return pids[q.pid] })
	}
	first, from := mine(), time.Now()
	rest(b, *idleFor)
	took := time.Since(from)
	last := mine()
	for _, s := range running {
		q, before := last[s.cmd.Process.Pid], first[s.cmd.Process.Pid]
		if q == nil || before == nil {
			return nil, fmt.Errorf("%s ended: %s", s.name, s.tail())
		}
		c.names = append(c.names, s.name)
		c.each[s.name] = q.private
		c.private, c.file = c.private+q.private, c.file+q.shared
		c.cores += (q.cpu - before.cpu).Seconds() / took.Seconds()
	}
	return c, nil
}

func (p *peers) start(running *[]*started, name string, args ...string) error {
	log, err := os.Create(filepath.Join(p.dir, name+".log"))
	if err != nil {
		return err
	}
	s := &started{name: name, cmd: exec.Command(p.program, append([]string{name}, args...)...), log: log,
		end: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, p.dir
	s.cmd.Env = append(os.Environ(), "GOGC="+gogc)
	if err := s.cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	go func() { s.end <- s.cmd.Wait() }() // stop waits for it
	*running = append(*running, s)
	return nil
}

func (s *started) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	<-s.end
	s.log.Close()
}

func (s *started) tail() string {
	text, _ := os.ReadFile(s.log.Name())
	return string(text[max(0, len(text)-1500):])
}

// await waits until an address answers, while what was started last is there.
func (p *peers) await(running []*started, url string) error {
	s := running[len(running)-1]
	var ended error
	err := testbed.Wait(*patience, lookEach/2, func() error {
		select {
		case e := <-s.end:
			s.end <- e
			ended = fmt.Errorf("%s ended: %v: %s", s.name, e, s.tail())
			return nil
		default:
			return answers(p.client, url)
		}
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", s.name, err)
	}
	return cmp.Or(ended, err)
}

// awaitAll waits for API server, controller-manager and scheduler.
func (p *peers) awaitAll(running []*started) error {
	return errors.Join(p.await(running, "https://127.0.0.1:"+p.ports[0]+"/readyz"),
		p.await(running, "https://127.0.0.1:"+p.ports[1]+"/healthz"),
		p.await(running, "https://127.0.0.1:"+p.ports[2]+"/healthz"))
}

func (p *peers) asOne(running *[]*started) error {
	args := []string{"--data-dir=" + filepath.Join(p.dir, "one"), "--run-dir=" + p.run(""), "--pki-dir=" + p.pki(""),
		"--bind-address=127.0.0.1",
		"--advertise-address=192.0.2.1", "--secure-port=" + p.ports[0], "--cluster-cidr=10.244.0.0/16",
		"--kube-controller-manager-arg=--secure-port=" + p.ports[1], "--kube-scheduler-arg=--secure-port=" + p.ports[2]}
	if file := p.pki("encryption.yaml"); exists(file) {
		args = append(args, "--encryption-config="+file)
	}
	if err := p.start(running, "control-plane", args...); err != nil {
		return err
	}
	return p.awaitAll(*running)
}

// asFour starts what asOne did with the flags that it gives to its parts (bundle/kubernetes/hyperkube/components.go)
// and with the files it wrote: it ran first.
func (p *peers) asFour(running *[]*started) error {
	client, peer := "http://127.0.0.1:"+p.ports[3], "http://127.0.0.1:"+p.ports[4]
	if err := p.start(running, "etcd", "--data-dir="+filepath.Join(p.dir, "four"), "--log-level=warn",
		"--snapshot-count=2000", "--quota-backend-bytes=536870912",
		"--listen-client-urls="+client, "--advertise-client-urls="+client, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer,
		"--initial-cluster=default="+peer); err != nil {
		return err
	}
	if err := p.await(*running, client+"/health"); err != nil {
		return err
	}
	args := []string{"--bind-address=127.0.0.1", "--secure-port=" + p.ports[0], "--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", "--etcd-servers=" + client, "--client-ca-file=" + p.pki("ca.crt"),
		"--tls-cert-file=" + p.pki("apiserver.crt"), "--tls-private-key-file=" + p.pki("apiserver.key"),
		"--kubelet-certificate-authority=" + p.pki("ca.crt"),
		"--kubelet-client-certificate=" + p.pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" +
			p.pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP", "--proxy-client-cert-file=" + p.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + p.pki("front-proxy-client.key"), "--requestheader-client-ca-file=" +
			p.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-key-file=" +
			p.pki("sa.pub"),
		"--service-account-signing-key-file=" + p.pki("sa.key"), "--service-cluster-ip-range=10.96.0.0/16",
		"--shutdown-watch-termination-grace-period=1s",
		"--advertise-address=192.0.2.1", "--authentication-config=" + p.run("authentication.yaml")}
	if file := p.pki("encryption.yaml"); exists(file) {
		args = append(args, "--encryption-provider-config="+file, "--encryption-provider-config-automatic-reload=true")
	}
	if err := p.start(running, "kube-apiserver", args...); err != nil {
		return err
	}
	if err := p.await(*running, "https://127.0.0.1:"+p.ports[0]+"/readyz"); err != nil {
		return err
	}
	common := func(name, port string) []string {
		config := p.run(name + ".kubeconfig")
		return strings.Fields("--bind-address=127.0.0.1 --leader-elect=false --secure-port=" + port +
			" --kubeconfig=" + config +
			" --authentication-kubeconfig=" + config + " --authorization-kubeconfig=" + config)
	}
	if err := p.start(running, "kube-controller-manager", append(common("controller-manager", p.ports[1]),
		"--use-service-account-credentials=true",
		"--root-ca-file="+p.pki("ca.crt"), "--service-account-private-key-file="+p.pki("sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16", "--cluster-signing-cert-file="+p.pki("ca.crt"),
		"--cluster-signing-key-file="+p.pki("ca.key"))...); err != nil {
		return err
	}
	if err := p.start(running, "kube-scheduler", common("scheduler", p.ports[2])...); err != nil {
		return err
	}
	return p.awaitAll(*running)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
