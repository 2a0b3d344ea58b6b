package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/network"
	"github.com/marinaos/marina/internal/network/dns"
	"github.com/marinaos/marina/internal/network/vip"
)

// The tests run in a machine of their own: this binary again, in fresh network and mount namespaces.
const inside = "MARINA_TEST_MACHINE"

func TestMain(m *testing.M) {
	if os.Getenv(owner) != "" {
		if err := useOwned(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var (
	subnet   = network.Prefix("10.77.3.0/24")
	info     = kernel.NetworkInfo{Pool: network.Prefix("10.77.0.0/16"), VIPs: network.Prefix("198.18.0.0/16")}
	vipAddr  = netip.MustParseAddr("198.18.0.7")
	machine  = netip.MustParseAddr("192.168.50.1") // of the tests' machine, on the link to the other computer
	computer = netip.MustParseAddr("192.168.50.2") // the other computer
)

func requireRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := os.Stat(filepath.Join(plugins(), "bridge")); err != nil {
		t.Fatalf("CNI plugins are missing, make -C bundle/runtime builds them: %v", err)
	}
}

func plugins() string { p, _ := filepath.Abs("../../bundle/runtime/bin"); return p }

// testbed is one machine with a datacenter, and another computer beside it.
type testbed struct {
	testing.TB
	state, other string // directory; the other computer's namespace
	cfg          network.Config
	dns          dns.Config
	n            *network.Network
	rules        *vip.Rules
	wrap         func(network.Rules) network.Rules // of the next process; nil for none
	stop         func()                            // ends the process but for what it leaves on the machine
}

func newTestbed(t testing.TB) *testbed {
	t.Helper()
	requireRoot(t)
	h := &testbed{TB: t, state: t.TempDir()}
	h.cfg = network.Config{State: h.state, ID: "0badcafe", Plugins: plugins()}
	resolv := filepath.Join(h.state, "resolv.conf")
	h.check(os.WriteFile(resolv, []byte("nameserver 192.168.50.2\n"), 0o600))
	h.dns = dns.Config{Resolv: resolv, Leader: func() netip.AddrPort { return netip.AddrPortFrom(machine, 5050) }}
	h.neighbour()
	h.start()
	t.Cleanup(func() {
		h.stop()
		h.begin()
		h.check(h.n.Cleanup(context.Background()))
		h.stop()
	})
	return h
}

func (h *testbed) check(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// neighbour makes the other computer and the link to it.
func (h *testbed) neighbour() {
	h.Helper()
	lo, err := netlink.LinkByName("lo")
	h.check(err)
	h.check(netlink.LinkSetUp(lo))
	h.other = filepath.Join(h.state, "other")
	h.check(network.MakeNamespace(h.other))
	ns, err := netns.GetFromPath(h.other)
	h.check(err)
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	h.check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far", PeerNamespace: netlink.NsFd(ns)}))
	up, err := netlink.LinkByName("uplink")
	h.check(err)
	h.check(netlink.AddrAdd(up, addr(netip.PrefixFrom(machine, 24))))
	h.check(netlink.LinkSetUp(up))
	h.check(netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: computer.AsSlice()}))
	far, err := netlink.NewHandleAt(ns)
	h.check(err)
	defer far.Close()
	link, err := far.LinkByName("far")
	h.check(err)
	h.check(far.AddrAdd(link, addr(netip.PrefixFrom(computer, 24))))
	h.check(far.LinkSetUp(link))
	h.Cleanup(func() { h.check(netlink.LinkDel(up)); h.check(network.DropNamespace(h.other)) })
}

func addr(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}}
}

// routeFromOther makes the other computer send to the instances' subnet by this machine.
func (h *testbed) routeFromOther() {
	h.Helper()
	h.check(within(h.other, func() error {
		far, err := netlink.LinkByName("far")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: far.Attrs().Index, Dst: addr(subnet).IPNet, Gw: machine.AsSlice()})
	}))
}

// begin makes the Network object of a new process.
func (h *testbed) begin() {
	h.Helper()
	rules, err := vip.New()
	h.check(err)
	names := dns.New(h.dns)
	wrapped := network.Rules(rules)
	if h.wrap != nil {
		wrapped = h.wrap(rules)
	}
	h.n, err = network.New(h.cfg, wrapped, names)
	h.check(err)
	h.rules = rules
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	n := h.n
	go func() { done <- n.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.Errorf("Run ended: %v", err)
		}
		n.Close()
		h.check(rules.Close())
		h.stop = func() {}
	}
}

// start is begin with what every process does first.
func (h *testbed) start() {
	h.Helper()
	h.begin()
	h.check(h.n.Configure(context.Background(), subnet, info))
}

// instance attaches an instance with port 80 and serves its name there.
func (h *testbed) group(name string, last byte, ports ...kernel.Mapping) kernel.Attachment {
	h.Helper()
	a := kernel.Attachment{Instance: kernel.InstanceID(name), Mode: kernel.NetworkBridge,
		Address: netip.AddrFrom4([4]byte{10, 77, 3, last}), Ports: ports}
	h.attach(a)
	return a
}

// attach attaches an instance and serves its name on port 80.
func (h *testbed) attach(a kernel.Attachment) string {
	h.Helper()
	path, err := h.n.Attach(h.Context(), a)
	h.check(err)
	h.serve(path, ":80", string(a.Instance))
	return path
}

// serve answers HTTP in a namespace ("": the machine) with name and the client's address.
func (h *testbed) serve(ns, at, name string) {
	h.Helper()
	var l net.Listener
	h.check(within(ns, func() (err error) { l, err = net.Listen("tcp4", at); return }))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s", name, from)
	})}
	go srv.Serve(l)
	h.Cleanup(func() { srv.Close() })
}

func (h *testbed) netns(a kernel.Attachment) string {
	h.Helper()
	path, err := h.n.Attach(h.Context(), a)
	h.check(err)
	return path
}

// within runs f on a thread in the namespace at path; sockets it makes stay there.
func within(path string, f func() error) error {
	if path == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		ns, err := netns.GetFromPath(path)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// patience is for packets that are dropped, or a machine that is busy.
var patience = time.Second

// dial connects from a namespace.
func dial(ns, protocol, at string) (c net.Conn, err error) {
	err = within(ns, func() (err error) { c, err = net.DialTimeout(protocol, at, patience); return })
	return c, err
}

// get asks over a new connection from a namespace and returns the server's name and the client address that it saw.
func get(ns, at string) (name, seen string, err error) {
	c, err := dial(ns, "tcp4", at)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0) // thousands of connections must not use up the client's ports
	return ask(c)
}

func ask(c net.Conn) (name, seen string, err error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
	res, err := client.Get("http://frontend/")
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	name, seen, _ = strings.Cut(string(b), " ")
	return name, seen, err
}

func (h *testbed) wantGet(ns, at, name, seen string) {
	h.Helper()
	gotName, gotSeen, err := get(ns, at)
	if err != nil {
		h.Errorf("GET %s from %q: %v", at, filepath.Base(ns), err)
	} else if gotName != name || seen != "" && gotSeen != seen {
		h.Errorf("GET %s from %q: answered by %s, which saw %s; want %s, %s", at, filepath.Base(ns), gotName, gotSeen, name,
			seen)
	}
}

// endpoint is a ready task of an instance with the VIP on port 80.
func endpoint(a kernel.Attachment) kernel.Endpoint {
	p := kernel.EndpointPort{Name: "web", Protocol: "tcp", Container: 80,
		VIPs: []kernel.EndpointVIP{{Name: "hello.marathon", Addr: vipAddr, Port: 80}}}
	for _, m := range a.Ports {
		p.Host = m.Host
	}
	return kernel.Endpoint{Task: kernel.TaskID(a.Instance) + ".task", Instance: a.Instance,
		Framework: "marathon", Owner: "/hello", Discovery: "hello", Agent: "c0ffee-S1", Machine: machine,
		Address: a.Address, Ports: []kernel.EndpointPort{p}, Running: true, Ready: true}
}
