package routes

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/knftables"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/netspace"
)

const answersWithin = 5 * time.Second

var (
	cluster  = netip.MustParsePrefix("10.244.0.0/16")
	services = netip.MustParsePrefix("10.96.0.0/16")
)

func apiNode(name, address, pods string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Spec.PodCIDR = pods
	if address != "" {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: address}}
	}
	return n
}

func TestPeersFollowFromNodes(t *testing.T) {
	nodes := []*corev1.Node{
		apiNode("node-9", "10.128.0.9", "10.244.1.0/24"), // node-2's range
		apiNode("node-2", "10.128.0.2", "10.244.1.0/24"),
		apiNode("node-1", "10.128.0.1", "10.244.0.0/24"),
		apiNode("node-3", "", "10.244.2.0/24"),
		apiNode("node-4", "10.128.0.4", ""),
		apiNode("node-5", "10.128.0.5", "192.168.0.0/24"), // no range of the cluster
		apiNode("node-6", "10.128.0.6", "0.0.0.0/0"),
		apiNode("node-7", "10.128.0.7", "10.244.7.0/24"),
	}
	var got []string
	for _, p := range peersOf("node-1", cluster, nodes) {
		got = append(got, p.node.String()+" "+p.pods.String()+" "+p.device().String()+" "+p.mac().String())
	}
	want := "10.128.0.2 10.244.1.0/24 10.244.1.0 0a:6d:0a:80:00:02, 10.128.0.7 10.244.7.0/24 10.244.7.0 0a:6d:0a:80:00:07"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}

func TestCNIConfigurationIsPutInPlaceOnce(t *testing.T) {
	content, err := cniConfig(netip.MustParsePrefix("10.244.3.0/24"), 1450, "/run/marina/gate.sock")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		CNIVersion, Name string
		Plugins          []struct {
			Type   string
			MTU    int
			IPMasq *bool
			IPAM   struct {
				Type   string
				Ranges [][]struct{ Subnet string }
			}
			Backend string
			Socket  string
		}
	}
	if err := json.Unmarshal(content, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Plugins) != 3 || c.Plugins[0].Type != "ptp" || c.Plugins[0].MTU != 1450 || *c.Plugins[0].IPMasq || c.Plugins[0].IPAM.Ranges[0][0].Subnet != "10.244.3.0/24" ||
		c.Plugins[1].Backend != "nftables" || c.Plugins[2].Type != "gate" || c.Plugins[2].Socket != "/run/marina/gate.sock" {
		t.Errorf("got %s", content)
	}
	file := filepath.Join(t.TempDir(), "net.d", "10-marina.conflist")
	if err := writeCNI(file, content); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeCNI(file, content); err != nil {
		t.Fatal(err)
	}
	if second, err := os.Stat(file); err != nil || !os.SameFile(first, second) {
		t.Error("the same content was written again")
	}
	if names, _ := os.ReadDir(filepath.Dir(file)); len(names) != 1 {
		t.Errorf("got %d files, want one", len(names))
	}
}

// testNode is a node in a namespace of its own, and a pod behind it.
type testNode struct {
	space, pod *netspace.Space
	self       peer
	over       *overlay
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		panic(err)
	}
}

// newTestNode makes a node that is connected to the bridge in the process's own namespace, with one pod behind it.
func newTestNode(t *testing.T, bridge netlink.Link, device, address, pods, pod string) *testNode {
	n := &testNode{space: netspace.New(t), pod: netspace.New(t), self: peer{netip.MustParseAddr(address), netip.MustParsePrefix(pods)}}
	joinBridge(t, bridge, n.space, device, address)
	n.pod.Join(n.space, "pod0", func(l netlink.Link) {
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: hostNet(netip.MustParseAddr(pod))}))
		gw := n.self.pods.Addr().Next()
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: hostNet(gw), Scope: netlink.SCOPE_LINK}))
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw.AsSlice()}))
	})
	n.space.Do(func() {
		must(t, set(sysctls))
		l, err := netlink.LinkByName("pod0")
		must(t, err)
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: hostNet(n.self.pods.Addr().Next())}))
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: hostNet(netip.MustParseAddr(pod)), Scope: netlink.SCOPE_LINK}))
	})
	return n
}

func joinBridge(t *testing.T, bridge netlink.Link, s *netspace.Space, device, address string) {
	s.Join(nil, device, func(l netlink.Link) {
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(address), Mask: net.CIDRMask(24, 32)}}))
	})
	l, err := netlink.LinkByName(device)
	must(t, err)
	must(t, netlink.LinkSetMaster(l, bridge))
}

// follow sets the node up for its peers, as sync does.
func (n *testNode) follow(t *testing.T, peers ...peer) {
	t.Helper()
	n.space.Do(func() {
		nft, err := knftables.New(knftables.IPv4Family, Table)
		must(t, err)
		under, err := linkOf(n.self.node)
		must(t, err)
		must(t, writeTable(t.Context(), nft, cluster, services, under.Attrs().Name, peers))
		n.over, err = openOverlay(n.self, 4097, under)
		must(t, err)
		must(t, set(overlaySysctls))
		must(t, n.over.keep(peers))
	})
}

// tell answers every connection with the address that it came from.
func tell(t *testing.T, s *netspace.Space) {
	t.Helper()
	s.Do(func() {
		l, err := net.Listen("tcp4", ":80")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
				c.Close()
			}
		}()
	})
}

// seen is the address that to sees from's connection come from, or why it does not.
func seen(s *netspace.Space, to string, limit time.Duration) (who string) {
	s.Do(func() {
		c, err := net.DialTimeout("tcp4", to+":80", limit)
		if err != nil {
			who = err.Error()
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(answersWithin))
		b, err := io.ReadAll(c)
		if who = string(b); err != nil {
			who = err.Error()
		}
	})
	return who
}

func TestPodsReachPodsOfOtherNodesAndTheOutside(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	bridge, err := netlink.LinkByName("br0")
	must(t, err)
	must(t, netlink.LinkSetUp(bridge))
	a := newTestNode(t, bridge, "a", "10.128.0.1", "10.244.0.0/24", "10.244.0.2")
	b := newTestNode(t, bridge, "b", "10.128.0.2", "10.244.1.0/24", "10.244.1.2")
	outside := netspace.New(t)
	joinBridge(t, bridge, outside, "out", "10.128.0.9")
	a.follow(t, b.self)
	b.follow(t, a.self)
	for _, s := range []*netspace.Space{a.space, a.pod, b.space, b.pod, outside} {
		tell(t, s)
	}
	for _, c := range []struct {
		name string
		from *netspace.Space
		to   string
		want string
	}{
		{"pod to pod of the other node, with its own address", a.pod, "10.244.1.2", "10.244.0.2"},
		{"and back", b.pod, "10.244.0.2", "10.244.1.2"},
		{"node to its own pod", a.space, "10.244.0.2", "10.244.0.1"},
		{"node to a pod of the other node", a.space, "10.244.1.2", "10.244.0.0"},
		{"pod to the outside, as the node", a.pod, "10.128.0.9", "10.128.0.1"},
		{"pod to another node, as its own node", a.pod, "10.128.0.2", "10.128.0.1"},
		{"pod to its own node", a.pod, "10.128.0.1", "10.244.0.2"},
		{"node to the outside", a.space, "10.128.0.9", "10.128.0.1"},
	} {
		if got := seen(c.from, c.to, answersWithin); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}

	// A big packet goes through: the pods' MTU has room for VXLAN.
	if got, want := a.over.mtu(), 1450; got != want {
		t.Errorf("got MTU %d, want %d", got, want)
	}

	// Who knows the way from outside does not come in by it, nor as a pod.
	outside.Do(func() {
		l, err := netlink.LinkByName("eth0")
		must(t, err)
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(cluster), Gw: net.ParseIP("10.128.0.1")}))
		must(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: hostNet(netip.MustParseAddr("10.244.5.5"))}))
	})
	if got := seen(outside, "10.244.0.2", time.Second); !strings.Contains(got, "timeout") {
		t.Errorf("outside to a pod: got %s, want nothing", got)
	}

	// Following the same again changes nothing, and the same device stands.
	index := a.over.link.Attrs().Index
	a.follow(t, b.self)
	if got := a.over.link.Attrs().Index; got != index {
		t.Errorf("got device %d, want %d: it was made anew", got, index)
	}
	// A node that goes is forgotten, one that comes back with another range is followed.
	a.follow(t)
	a.space.Do(func() {
		have, err := a.over.standing()
		must(t, err)
		if len(have.forwards)+len(have.neighbours)+len(have.routes) != 0 {
			t.Errorf("without peers: got %v", have)
		}
	})
	if got := seen(a.pod, "10.244.1.2", time.Second); got == "10.244.0.2" {
		t.Error("a pod of a node that is gone is still reached")
	}
	moved := b.self
	moved.pods = netip.MustParsePrefix("10.244.9.0/24")
	a.follow(t, moved)
	a.space.Do(func() {
		have, err := a.over.standing()
		must(t, err)
		if _, ok := have.routes["10.244.9.0/24 10.244.9.0"]; !ok || len(have.routes) != 1 || len(have.forwards) != 1 || len(have.neighbours) != 1 {
			t.Errorf("got %v, want the new range's entries", have)
		}
	})
}

func TestNodeFollowsTheAPI(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}))
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	must(t, netlink.AddrAdd(eth0, &netlink.Addr{IPNet: hostNet(netip.MustParseAddr("10.128.0.1"))}))
	must(t, netlink.LinkSetUp(eth0))
	nft, err := knftables.New(knftables.IPv4Family, Table)
	must(t, err)

	api := fake.NewClientset(apiNode("node-1", "10.128.0.1", ""))
	factory := informers.NewSharedInformerFactory(api, 0)
	cni := filepath.Join(t.TempDir(), "10-marina.conflist")
	rules := make(chan struct{})
	r, err := New(Config{
		Node: "node-1", Address: netip.MustParseAddr("10.128.0.1"), Cluster: cluster, Services: services, VNI: 7,
		Informers: factory, NFT: nft, CNIConfig: cni, GateSocket: "/run/marina/gate.sock", AfterCNI: rules,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	must(t, err)
	factory.Start(t.Context().Done())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	<-r.Seen()
	if _, err := os.Stat(cni); err == nil {
		t.Error("a CNI configuration without a range")
	}
	nodes := api.CoreV1().Nodes()
	_, err = nodes.Update(t.Context(), apiNode("node-1", "10.128.0.1", "10.244.0.0/24"), metav1.UpdateOptions{})
	must(t, err)
	_, err = nodes.Create(t.Context(), apiNode("node-2", "10.128.0.2", "10.244.1.0/24"), metav1.CreateOptions{})
	must(t, err)
	select {
	case <-r.Ready():
		t.Error("ready before the rules stand")
	default:
	}
	close(rules)
	select {
	case <-r.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready")
	}
	if b, err := os.ReadFile(cni); err != nil || !strings.Contains(string(b), "10.244.0.0/24") {
		t.Errorf("CNI configuration: got %v, %s", err, b)
	}
	waitRoutes(t, 1)
	must(t, nodes.Delete(t.Context(), "node-2", metav1.DeleteOptions{}))
	waitRoutes(t, 0)
}

// waitRoutes waits for the kernel to say that a route came or went.
func waitRoutes(t *testing.T, want int) {
	t.Helper()
	updates, done := make(chan netlink.RouteUpdate, 64), make(chan struct{})
	defer close(done)
	must(t, netlink.RouteSubscribe(updates, done))
	limit := time.After(time.Minute)
	for {
		got := 0
		if link, err := netlink.LinkByName(Device); err == nil {
			routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
			must(t, err)
			for _, r := range routes {
				if r.Gw != nil {
					got++
				}
			}
		}
		if got == want {
			return
		}
		select {
		case <-updates:
		case <-limit:
			t.Fatalf("got %d routes to nodes, want %d", got, want)
		}
	}
}
