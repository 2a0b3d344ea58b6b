package network_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/network"
)

func TestServiceIsReachedFromEverywhere(t *testing.T) {
	h := newTestbed(t)
	a := h.group("web", 10, kernel.Mapping{Protocol: "tcp", Container: 80, Host: 31080})
	b := h.group("client", 11)
	e := endpoint(a)
	e.Ports[0].Publish = 8088
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))

	for _, c := range []struct{ what, ns, at, seen string }{
		{"VIP from the machine", "", "198.18.0.7:80", "10.77.3.1"},
		{"VIP from another group", h.netns(b), "198.18.0.7:80", "10.77.3.11"},
		{"VIP from itself", h.netns(a), "198.18.0.7:80", "10.77.3.1"},
		{"own address from another group", h.netns(b), "10.77.3.10:80", "10.77.3.11"},
		{"own address from the machine", "", "10.77.3.10:80", "10.77.3.1"},
		{"host port from another computer", h.other, "192.168.50.1:31080", "192.168.50.2"},
		{"host port from the machine", "", "192.168.50.1:31080", "192.168.50.1"},
		{"host port from the machine at 127.0.0.1", "", "127.0.0.1:31080", "10.77.3.1"},
		{"host port from another group", h.netns(b), "192.168.50.1:31080", "10.77.3.11"},
		{"host port from itself", h.netns(a), "192.168.50.1:31080", "10.77.3.1"},
		{"published port from another computer", h.other, "192.168.50.1:8088", "192.168.50.2"},
		{"published port from the machine", "", "192.168.50.1:8088", "192.168.50.1"},
		{"published port from the machine at 127.0.0.1", "", "127.0.0.1:8088", "10.77.3.1"},
		{"published port from itself", h.netns(a), "192.168.50.1:8088", "10.77.3.1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			x := *h
			x.TB = t
			x.wantGet(c.ns, c.at, "web", c.seen)
		})
	}
}

// The kernel takes another way for packets between instances where br_netfilter is off.
func TestServiceIsReachedWhereBridgesDoNotCallIptables(t *testing.T) {
	const setting = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if b, err := os.ReadFile(setting); err != nil || b[0] == '0' {
		t.Skip("br_netfilter is off already, the other tests run without it")
	}
	h := newTestbed(t)
	h.check(os.WriteFile(setting, []byte("0"), 0))
	defer os.WriteFile(setting, []byte("1"), 0)
	a, b := h.group("web", 10), h.group("client", 11)
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{endpoint(a)}))
	h.wantGet("", "198.18.0.7:80", "web", "10.77.3.1")
	h.wantGet(h.netns(b), "198.18.0.7:80", "web", "10.77.3.11")
	h.wantGet(h.netns(a), "198.18.0.7:80", "web", "10.77.3.1")
	h.wantGet(h.netns(b), "10.77.3.10:80", "web", "10.77.3.11")
}

// wantRefused expects a connection to be refused at once.
func (h *testbed) wantRefused(ns, protocol, at string) {
	h.Helper()
	start := time.Now()
	c, err := dial(ns, protocol, at)
	if err == nil {
		_, _ = c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		h.Errorf("%s %s from %q: %v, want connection refused", protocol, at, filepath.Base(ns), err)
	} else if d := time.Since(start); d > 500*time.Millisecond {
		h.Errorf("%s %s from %q was refused after %v", protocol, at, filepath.Base(ns), d)
	}
}

func TestFrontendsWithoutBackendsRefuseAtOnce(t *testing.T) {
	h := newTestbed(t)
	a, b := h.group("web", 10), h.group("client", 11)
	e := endpoint(a)
	e.Ports[0].Publish = 8088
	literal := kernel.EndpointVIP{Addr: netip.MustParseAddr("203.0.113.9"), Port: 90}
	e.Ports[0].VIPs = append(e.Ports[0].VIPs, literal)
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))
	h.wantGet(h.netns(b), "203.0.113.9:90", "web", "")
	h.wantGet("", "203.0.113.9:90", "web", "")
	e.Ready = false
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))

	for _, ns := range []string{"", h.netns(a), h.netns(b)} {
		h.wantRefused(ns, "tcp4", "198.18.0.7:80")   // nobody ready
		h.wantRefused(ns, "tcp4", "198.18.0.7:81")   // no such port
		h.wantRefused(ns, "tcp4", "198.18.200.1:80") // no such VIP
		h.wantRefused(ns, "tcp4", "203.0.113.9:90")
		h.wantRefused(ns, "tcp4", "192.168.50.1:8088")
	}
	h.wantRefused("", "udp4", "198.18.0.7:80")
	h.wantRefused(h.netns(h.group("fresh", 12)), "udp4", "198.18.0.7:80") // the kernel limits such answers to each address
	h.wantRefused("", "tcp4", "127.0.0.1:8088")
	h.wantRefused(h.other, "tcp4", "192.168.50.1:8088")
}

func TestBackendsChangeWithoutFailedRequests(t *testing.T) {
	h := newTestbed(t)
	var all []kernel.Endpoint
	for i := range 4 {
		all = append(all, endpoint(h.group(fmt.Sprintf("web%d", i), byte(10+i))))
	}
	client := h.netns(h.group("zclient", 30))
	h.check(h.n.Apply(t.Context(), all[:1]))
	kept, err := dial(client, "tcp4", "198.18.0.7:80")
	h.check(err)
	defer kept.Close()

	patience = 10 * time.Second // a busy machine is no failed request
	defer func() { patience = time.Second }()
	var worst atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var asked, failed atomic.Int64
	var answered sync.Map
	var wg sync.WaitGroup
	for _, ns := range []string{"", client} {
		wg.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				name, _, err := get(ns, "198.18.0.7:80")
				if d := int64(time.Since(start)); d > worst.Load() {
					worst.Store(d)
				}
				asked.Add(1)
				answered.Store(name, true)
				if err != nil && failed.Add(1) < 10 {
					t.Errorf("request %d, from %q: %v", asked.Load(), filepath.Base(ns), err)
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var some []kernel.Endpoint
		for _, e := range all {
			if rng.IntN(2) == 0 {
				some = append(some, e)
			}
		}
		if len(some) == 0 {
			some = all[2:3]
		}
		h.check(h.n.Apply(t.Context(), some))
	}
	h.check(h.n.Apply(t.Context(), all[1:]))
	cancel()
	wg.Wait()
	if failed.Load() > 0 || asked.Load() < 100 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
	for _, e := range all {
		if _, ok := answered.Load(string(e.Instance)); !ok {
			t.Errorf("%s never answered", e.Instance)
		}
	}
	if name, _, err := ask(kept); err != nil || name != "web0" {
		t.Errorf("connection made before all changes: %q, %v", name, err)
	}
	t.Logf("%d requests during 201 changes, the slowest took %v", asked.Load(), time.Duration(worst.Load()))
}

func TestProcessMayEndAndComeBack(t *testing.T) {
	h := newTestbed(t)
	a := h.group("web", 10, kernel.Mapping{Protocol: "tcp", Container: 80, Host: 31080})
	gone := h.group("web2", 11)
	h.group("client", 12)
	e := endpoint(a)
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e, endpoint(gone)}))
	serving := func(what string) {
		t.Helper()
		for range 4 {
			if _, _, err := get("", "198.18.0.7:80"); err != nil {
				t.Errorf("%s: VIP: %v", what, err)
			}
		}
		h.wantGet(h.other, "192.168.50.1:31080", "web", "")
		h.wantGet("", "127.0.0.1:31080", "web", "")
	}
	h.stop()
	serving("while nobody runs")
	h.start()
	serving("after Configure")
	groups, err := h.n.Attached(t.Context())
	if want := []kernel.InstanceID{"client", "web", "web2"}; err != nil || !slices.Equal(groups, want) {
		t.Errorf("attached after the restart: %v, %v; want %v", groups, err, want)
	}
	if l, err := net.Listen("tcp4", ":31080"); err == nil {
		l.Close()
		t.Error("host port can be taken by others after the restart")
	}
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))
	serving("after Apply")
	h.check(h.n.Detach(t.Context(), "web2"))
	h.check(h.n.Apply(t.Context(), nil))
	h.wantRefused("", "tcp4", "198.18.0.7:80")
	h.check(h.n.Detach(t.Context(), "web"))
	h.wantRefused("", "tcp4", "127.0.0.1:31080")
	l, err := net.Listen("tcp4", ":31080")
	h.check(err)
	l.Close()
}

func TestHalfMadeAttachmentIsCompleted(t *testing.T) {
	h := newTestbed(t)
	a := h.group("web", 10)
	path := h.netns(a)
	for what, harm := range map[string]func() error{
		"record says half-made": func() error {
			files, _ := filepath.Glob(filepath.Join(h.state, "network/groups/*.json"))
			b, err := os.ReadFile(files[0])
			if err != nil {
				return err
			}
			return os.WriteFile(files[0], bytes.Replace(b, []byte(`"done":true`), []byte(`"done":false`), 1), 0o600)
		},
		"namespace is a file of before the boot": func() error {
			return errors.Join(network.DropNamespace(path), os.WriteFile(path, nil, 0o600))
		},
	} {
		h.stop()
		h.check(harm())
		h.start()
		got, err := h.n.Attach(t.Context(), a)
		if err != nil || got != path {
			t.Fatalf("%s: Attach: %q, %v", what, got, err)
		}
		h.serve(path, ":81", "again")
		h.wantGet("", "10.77.3.10:81", "again", "10.77.3.1")
	}
}

// flakyRules refuse some changes.
type flakyRules struct {
	network.Rules
	refuse int // so many
}

func (r *flakyRules) ChangeRules(c network.RuleChange) error {
	if r.refuse > 0 {
		r.refuse--
		return errors.New("the kernel is busy")
	}
	return r.Rules.ChangeRules(c)
}

func TestAttachIsRepeatedAfterRulesRefusedIt(t *testing.T) {
	h := newTestbed(t)
	h.stop()
	flaky := &flakyRules{}
	h.wrap = func(r network.Rules) network.Rules { flaky.Rules = r; return flaky }
	h.start()
	flaky.refuse = 2 // the change, and the one that undoes it
	a := kernel.Attachment{Instance: "web", Mode: kernel.NetworkBridge, Address: netip.MustParseAddr("10.77.3.10"),
		Ports: []kernel.Mapping{{Protocol: "tcp", Container: 80, Host: 31080}}}
	if _, err := h.n.Attach(t.Context(), a); err == nil {
		t.Error("Attach succeeded although the rules refused the change")
	}
	h.attach(a)
	h.wantGet(h.other, "192.168.50.1:31080", "web", "192.168.50.2")
}

func TestForeignListenerIsNamedAndNeverHijacked(t *testing.T) {
	h := newTestbed(t)
	h.serve("", ":31080", "foreign")
	h.serve("", "127.0.0.1:8088", "foreign")
	owner := fmt.Sprintf("process %d (", os.Getpid())

	a := kernel.Attachment{Instance: "web", Mode: kernel.NetworkBridge, Address: netip.MustParseAddr("10.77.3.10"),
		Ports: []kernel.Mapping{{Protocol: "tcp", Container: 80, Host: 31080}}}
	_, err := h.n.Attach(t.Context(), a)
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), owner) {
		t.Errorf("Attach: %v, want ErrAlreadyExists naming %s", err, owner)
	}
	host := kernel.Attachment{Instance: "host", Mode: kernel.NetworkHost,
		Ports: []kernel.Mapping{{Protocol: "tcp", Host: 31080}}}
	if err := h.n.OpenPorts(t.Context(), host); !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), owner) {
		t.Errorf("Hold: %v, want ErrAlreadyExists naming %s", err, owner)
	}
	if groups, _ := h.n.Attached(t.Context()); len(groups) > 0 {
		t.Errorf("attached after the refusals: %v", groups)
	}
	e := endpoint(h.group("web", 10))
	e.Ports[0].Publish = 8088
	if err := h.n.Apply(t.Context(), []kernel.Endpoint{e}); !errdefs.IsAlreadyExists(err) ||
		!strings.Contains(err.Error(), owner) {
		t.Errorf("Apply: %v, want ErrAlreadyExists naming %s", err, owner)
	}
	h.wantGet("", "127.0.0.1:31080", "foreign", "")
	h.wantGet("", "127.0.0.1:8088", "foreign", "")
	h.wantGet("", "198.18.0.7:80", "web", "") // all else was applied
}

func TestPublishedPortIsTakenWhenItBecomesFree(t *testing.T) {
	h := newTestbed(t)
	l, err := net.Listen("tcp4", ":8088")
	h.check(err)
	e := endpoint(h.group("web", 10))
	e.Ports[0].Publish = 8088
	if err := h.n.Apply(t.Context(), []kernel.Endpoint{e}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("Apply: %v, want ErrAlreadyExists", err)
	}
	l.Close()
	h.n.Repair()
	h.wantGet(h.other, "192.168.50.1:8088", "web", "192.168.50.2")
	h.wantGet("", "127.0.0.1:8088", "web", "")
}

func TestInstancesReachNothingOfTheMachineButWhatIsOpen(t *testing.T) {
	h := newTestbed(t)
	h.serve("", ":22022", "ssh")
	h.serve("", ":31500", "hosted")
	ns := h.netns(h.group("client", 10))
	for _, at := range []string{"10.77.3.1:22022", "192.168.50.1:22022", "192.168.50.1:31500"} {
		if _, _, err := get(ns, at); err == nil {
			t.Errorf("a group reaches %s of the machine", at)
		}
	}
	free, err := net.Listen("tcp4", ":0")
	h.check(err)
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	host := kernel.Attachment{Instance: "host", Mode: kernel.NetworkHost,
		Ports: []kernel.Mapping{{Protocol: "tcp", Host: uint16(port)}}}
	h.check(h.n.OpenPorts(t.Context(), host))
	h.serve("", fmt.Sprint(":", port), "hosted")
	h.check(h.n.OpenPorts(t.Context(), host)) // again, its own task listening
	h.wantGet(ns, fmt.Sprint("192.168.50.1:", port), "hosted", "10.77.3.10")

	e := kernel.Endpoint{Task: "host.task", Instance: "host", Framework: "marathon", Owner: "/host", Machine: machine,
		Running: true, Ready: true,
		Ports: []kernel.EndpointPort{{Protocol: "tcp", Host: uint16(port),
			VIPs: []kernel.EndpointVIP{{Addr: vipAddr, Port: 80}}}}}
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))
	h.wantGet(ns, "198.18.0.7:80", "hosted", "10.77.3.10")
	h.wantGet("", "198.18.0.7:80", "hosted", "10.77.3.1")

	h.check(h.n.Detach(t.Context(), "host"))
	h.wantRefused(ns, "tcp4", fmt.Sprint("192.168.50.1:", port))
}

func TestInstancesReachTheOutsideAsTheMachine(t *testing.T) {
	h := newTestbed(t)
	h.serve(h.other, ":80", "outside")
	h.wantGet(h.netns(h.group("client", 10)), "192.168.50.2:80", "outside", "192.168.50.1")
	// From outside, an instance's address leads nowhere even to those who route it here.
	h.group("web", 11)
	h.routeFromOther()
	if _, _, err := get(h.other, "10.77.3.11:80"); err == nil {
		t.Error("another computer reaches a group without a frontend")
	}
}

func TestInstancesDoNotReachTheMachinesMetadata(t *testing.T) {
	h := newTestbed(t)
	h.check(within(h.other, func() error {
		far, err := netlink.LinkByName("far")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(far, addr(network.Prefix("169.254.169.254/32")))
	}))
	h.serve(h.other, ":80", "credentials")
	h.wantGet("", "169.254.169.254:80", "credentials", "192.168.50.1")
	h.wantRefused(h.netns(h.group("client", 10)), "tcp4", "169.254.169.254:80")
}

func TestInstanceSendsFromItsOwnAddressOnly(t *testing.T) {
	h := newTestbed(t)
	a, b := h.group("honest", 10), h.group("liar", 11)
	victim := h.netns(a)
	ns := h.netns(b)
	link := func(f func(eth0 netlink.Link) error) {
		t.Helper()
		h.check(within(ns, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return f(l)
		}))
	}
	other := netip.MustParseAddr("10.77.3.99")
	link(func(l netlink.Link) error { return netlink.AddrAdd(l, addr(network.Single(other))) })
	received := func(at string, from netip.Addr) bool {
		t.Helper()
		var in net.PacketConn
		h.check(within(victim, func() (err error) { in, err = net.ListenPacket("udp4", ":9000"); return }))
		defer in.Close()
		h.check(within(ns, func() error {
			out, err := net.DialUDP("udp4", &net.UDPAddr{IP: from.AsSlice()},
				net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
			if err != nil {
				return err
			}
			defer out.Close()
			_, err = out.Write([]byte("hello"))
			return err
		}))
		in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, _, err := in.ReadFrom(make([]byte, 10))
		return err == nil
	}
	if !received("10.77.3.10:9000", b.Address) {
		t.Error("a packet from the group's own address did not arrive")
	}
	if received("10.77.3.10:9000", other) {
		t.Error("a packet from another address arrived")
	}
	// Straight to the neighbour, past the gateway.
	link(func(l netlink.Link) error {
		var mac net.HardwareAddr
		if err := within(victim, func() error {
			v, err := netlink.LinkByName("eth0")
			if err == nil {
				mac = v.Attrs().HardwareAddr
			}
			return err
		}); err != nil {
			return err
		}
		return errors.Join(
			netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: addr(network.Single(a.Address)).IPNet,
				Scope: netlink.SCOPE_LINK}),
			netlink.NeighAdd(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: a.Address.AsSlice(), HardwareAddr: mac,
				State: netlink.NUD_PERMANENT}))
	})
	if received("10.77.3.10:9000", b.Address) {
		t.Error("a packet past the gateway arrived")
	}
	// 127.0.0.1 of the machine.
	h.serve("", "127.0.0.1:22022", "private")
	link(func(l netlink.Link) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(lo); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0); err != nil {
			return err
		}
		_ = netlink.AddrDel(lo, addr(network.Prefix("127.0.0.1/8")))
		return nil
	})
	if _, _, err := get(ns, "127.0.0.1:22022"); err == nil {
		t.Error("a group reaches 127.0.0.1 of the machine")
	}
}

func TestUDPLeavesARemovedBackend(t *testing.T) {
	h := newTestbed(t)
	var all []kernel.Endpoint
	for i, name := range []string{"a", "b"} {
		a := h.group(name, byte(10+i))
		var c net.PacketConn
		h.check(within(h.netns(a), func() (err error) { c, err = net.ListenPacket("udp4", ":53"); return }))
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 10)
			for {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				c.WriteTo([]byte(name), from)
			}
		}()
		e := endpoint(a)
		e.Ports = []kernel.EndpointPort{{Protocol: "udp", Container: 53,
			VIPs: []kernel.EndpointVIP{{Addr: vipAddr, Port: 53}}}}
		all = append(all, e)
	}
	h.check(h.n.Apply(t.Context(), all[:1]))
	c, err := net.Dial("udp4", "198.18.0.7:53")
	h.check(err)
	defer c.Close()
	want := func(name string) {
		t.Helper()
		_, err := c.Write([]byte("?"))
		h.check(err)
		b := make([]byte, 10)
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(b)
		if string(b[:n]) != name {
			t.Errorf("answered by %q, %v; want %q", b[:n], err, name)
		}
	}
	want("a")
	h.check(h.n.Apply(t.Context(), all))
	want("a") // it stays where it is
	h.check(h.n.Apply(t.Context(), all[1:]))
	want("b")
}

func TestDamageByOthersIsRepaired(t *testing.T) {
	h := newTestbed(t)
	a := h.group("web", 10, kernel.Mapping{Protocol: "tcp", Container: 80, Host: 31080})
	h.group("client", 11)
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{endpoint(a)}))
	kept, err := dial("", "tcp4", "198.18.0.7:80")
	h.check(err)
	defer kept.Close()
	for what, harm := range map[string]func() error{
		"all rules flushed": func() error { c := nftables.Conn{}; c.FlushRuleset(); return c.Flush() },
		"elements of a set gone": func() error {
			c := nftables.Conn{}
			s, err := c.GetSetByName(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "marina_0badcafe"}, "doors")
			if err != nil {
				return err
			}
			c.FlushSet(s)
			return c.Flush()
		},
		"rules of a chain gone": func() error {
			c := nftables.Conn{}
			t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "marina_0badcafe"}
			c.FlushChain(&nftables.Chain{Table: t, Name: "redirect_own"})
			return c.Flush()
		},
		"bridge gone": func() error {
			l, err := netlink.LinkByName(network.BridgeName("0badcafe"))
			if err != nil {
				return err
			}
			return netlink.LinkDel(l)
		},
	} {
		h.check(harm())
		h.n.Repair()
		if _, _, err := get("", "198.18.0.7:80"); err != nil {
			t.Errorf("%s: VIP: %v", what, err)
		}
		if _, _, err := get(h.other, "192.168.50.1:31080"); err != nil {
			t.Errorf("%s: host port: %v", what, err)
		}
	}
	if name, _, err := ask(kept); err != nil {
		t.Errorf("connection made before: %q, %v", name, err)
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	snapshot := func() string {
		t.Helper()
		var b strings.Builder
		links, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			fmt.Fprintln(&b, "link", l.Attrs().Name, l.Type())
		}
		for _, table := range []int{syscall.RT_TABLE_MAIN, syscall.RT_TABLE_LOCAL} {
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range routes {
				fmt.Fprintln(&b, "route", r.Dst, r.LinkIndex, table)
			}
		}
		c := nftables.Conn{}
		tables, err := c.ListTables()
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range tables {
			fmt.Fprintln(&b, "table", x.Family, x.Name)
		}
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		fmt.Fprintln(&b, "mounts", bytes.Count(mounts, []byte("\n")))
		all, _ := filepath.Glob("/proc/sys/net/ipv4/*")
		more, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/*")
		for _, f := range append(all, more...) {
			v, _ := os.ReadFile(f)
			fmt.Fprintf(&b, "%s %s\n", f, v)
		}
		return b.String()
	}
	h := newTestbed(t)
	h.check(h.n.Cleanup(t.Context()))
	before := snapshot()
	h.stop()
	h.start()
	a := h.group("web", 10, kernel.Mapping{Protocol: "tcp", Container: 80, Host: 31080})
	h.attach(kernel.Attachment{Instance: "node", Mode: kernel.NetworkBridge, Address: netip.MustParseAddr("10.77.3.11"),
		IDs: &ids, Network: "kubernetes/a"})
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{endpoint(a)}))
	if snapshot() == before {
		t.Fatal("the snapshot sees nothing of a datacenter")
	}
	h.stop()
	h.begin() // a new process that was never configured
	h.check(h.n.Cleanup(t.Context()))
	if after := snapshot(); after != before {
		t.Errorf("left behind:\n%s", cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")))
	}
	for _, dir := range []string{"netns", "network"} {
		if _, err := os.Stat(filepath.Join(h.state, dir)); err == nil {
			t.Errorf("directory %s is left", dir)
		}
	}
	h.check(h.n.Cleanup(t.Context()))
}

func TestConflictsAreNamed(t *testing.T) {
	h := newTestbed(t)
	for _, c := range []struct{ pool, vips, want string }{
		{"192.168.0.0/16", "198.18.0.0/16", "192.168.50.1/24 of uplink"},
		{"10.77.0.0/16", "192.168.50.128/25", "192.168.50.1/24 of uplink"},
		{"10.77.0.0/16", "198.18.0.0/16", ""},
	} {
		err := network.CheckConflicts(network.BridgeName("0badcafe"), network.Prefix(c.pool), network.Prefix(c.vips))
		if c.want == "" && err != nil || c.want != "" &&
			(!errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("pool %s, VIPs %s: %v, want %q", c.pool, c.vips, err, c.want)
		}
	}
	other := network.CheckConflicts(network.BridgeName("deadbeef"), network.Prefix("10.99.0.0/16"), info.VIPs)
	if !errdefs.IsAlreadyExists(other) || !strings.Contains(other.Error(), "198.18.0.0/16 by lo") {
		t.Errorf("VIPs of another datacenter: %v", other)
	}
	if err := h.n.Configure(t.Context(), network.Prefix("10.78.0.0/24"), info); !errdefs.IsInvalidArgument(err) {
		t.Errorf("subnet outside the pool: %v", err)
	}
	h.group("web", 10)
	if err := h.n.Configure(t.Context(), network.Prefix("10.77.4.0/24"), info); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another subnet while groups are attached: %v", err)
	}
}

func TestPreflightNamesChainsThatDrop(t *testing.T) {
	requireRoot(t)
	c := nftables.Conn{}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	c.AddChain(&nftables.Chain{Table: table, Name: "FORWARD", Type: nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter, Policy: new(nftables.ChainPolicyDrop)})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.DelTable(table); c.Flush() }()
	got, err := network.Preflight(t.Context(), "mar0badca")
	want := []kernel.Finding{{Severity: kernel.Warning,
		What: "nftables chain FORWARD of table ip filter drops what it does not know",
		Do:   `nft insert rule ip filter FORWARD iifname "mar0badca" accept; nft insert rule ip filter FORWARD oifname "mar0badca" accept`}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Preflight: %+v, %v; want %+v", got, err, want)
	}
}

func TestTwoDatacentersOnOneMachine(t *testing.T) {
	h := newTestbed(t)
	second := *h
	second.state, second.cfg.ID = t.TempDir(), "deadbeef"
	second.cfg.State = second.state
	second.begin()
	h.check(second.n.Configure(t.Context(), network.Prefix("10.78.3.0/24"),
		kernel.NetworkInfo{Pool: network.Prefix("10.78.0.0/16"), VIPs: network.Prefix("198.19.0.0/16")}))
	a := h.group("web", 10, kernel.Mapping{Protocol: "tcp", Container: 80, Host: 31080})
	e := endpoint(a)
	e.Ports[0].Publish = 8088
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))

	b := kernel.Attachment{Instance: "web", Mode: kernel.NetworkBridge, Address: netip.MustParseAddr("10.78.3.10"),
		Ports: []kernel.Mapping{{Protocol: "tcp", Container: 80, Host: 31081}}}
	path, err := second.n.Attach(t.Context(), b)
	h.check(err)
	second.serve(path, ":80", "web2")
	e2 := endpoint(b)
	e2.Ports[0].VIPs[0].Addr = netip.MustParseAddr("198.19.0.1")
	h.check(second.n.Apply(t.Context(), []kernel.Endpoint{e2}))
	h.wantGet("", "198.18.0.7:80", "web", "")
	h.wantGet("", "198.19.0.1:80", "web2", "")
	h.wantGet(h.other, "192.168.50.1:31081", "web2", "192.168.50.2")
	h.wantGet(path, "192.168.50.1:8088", "web", "") // through a frontend, like everybody
	for _, at := range []string{"10.77.3.10:80", "198.18.0.7:80"} {
		if _, _, err := get(path, at); err == nil {
			t.Errorf("a group of the second datacenter reaches %s of the first", at)
		}
	}
	b.Instance, b.Address, b.Ports = "greedy", netip.MustParseAddr("10.78.3.11"), a.Ports
	if _, err := second.n.Attach(t.Context(), b); !errdefs.IsAlreadyExists(err) {
		t.Errorf("host port of the other datacenter: %v, want ErrAlreadyExists", err)
	}
	h.check(second.n.Cleanup(t.Context()))
	second.stop()
	h.wantGet("", "198.18.0.7:80", "web", "")
	h.wantGet(h.other, "192.168.50.1:31080", "web", "")
}

func TestManyInstancesAttachAtOnce(t *testing.T) {
	h := newTestbed(t)
	const count = 20
	start := time.Now()
	var wg sync.WaitGroup
	for i := range count {
		wg.Go(func() {
			a := kernel.Attachment{Instance: kernel.InstanceID(fmt.Sprint("g", i/2)), Mode: kernel.NetworkBridge, // each twice
				Address: netip.AddrFrom4([4]byte{10, 77, 3, byte(10 + i/2)}),
				Ports:   []kernel.Mapping{{Protocol: "tcp", Container: 80, Host: uint16(31000 + i/2)}}}
			if _, err := h.n.Attach(t.Context(), a); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d groups in %v", count/2, time.Since(start))
	if groups, err := h.n.Attached(t.Context()); err != nil || len(groups) != count/2 {
		t.Errorf("attached: %v, %v", groups, err)
	}
	for i := range count / 2 {
		wg.Go(func() {
			if err := h.n.Detach(t.Context(), kernel.InstanceID(fmt.Sprint("g", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left, _ := os.ReadDir(filepath.Join(h.state, "netns")); len(left) > 0 {
		t.Errorf("namespaces left: %v", left)
	}
	for f := range h.rules.Frontends() {
		t.Errorf("frontend left: %v", f)
	}
}
