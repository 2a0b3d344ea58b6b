package policy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/knftables"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/netspace"
)

// lost is how long a packet may be on its way on a loaded machine. Refusals are told at once.
const lost = 5 * time.Second

var gateway = netip.MustParseAddr("10.244.0.1")

// lab is a node in the process's own namespace, and the world's places around it.
type lab struct {
	t      *testing.T
	spaces map[string]*netspace.Space
}

// newLab connects all places. Each answers on TCP 80, 81, 8080 and 8085 with its name, and on UDP 53. The node
// forwards.
func newLab(t *testing.T) *lab {
	for file, value := range map[string]string{
		"ip_forward":     "1",
		"icmp_ratelimit": "0", // or refusals are told to some and not to others
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+file, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := &lab{t: t, spaces: map[string]*netspace.Space{}}
	for i, name := range sortedKeys(places) {
		s := netspace.New(t)
		s.Pod(fmt.Sprintf("pod%d", i), gateway, places[name])
		l.spaces[name] = s
		s.Do(func() { l.serve(name) })
	}
	return l
}

// serve opens the sockets in the caller's namespace; they stay in it wherever they are used.
func (l *lab) serve(name string) {
	for _, port := range []int{80, 81, 8080, 8085} {
		listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			l.t.Error(err)
			return
		}
		l.t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go echo(conn, name)
			}
		}()
	}
	packets, err := net.ListenPacket("udp4", ":53")
	if err != nil {
		l.t.Error(err)
		return
	}
	l.t.Cleanup(func() { packets.Close() })
	go func() {
		for b := make([]byte, 64); ; {
			_, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			packets.WriteTo([]byte(name), from)
		}
	}()
}

// echo greets with its name and then sends back what comes.
func echo(conn net.Conn, name string) {
	defer conn.Close()
	fmt.Fprintln(conn, name)
	for b := make([]byte, 64); ; {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		conn.Write(b[:n])
	}
}

// reaches says whether the packet's destination answers.
func (l *lab) reaches(p packet) (ok bool) {
	l.t.Helper()
	l.spaces[p.from].Do(func() { ok = l.dial(p) })
	return ok
}

func (l *lab) dial(p packet) bool {
	conn, err := net.DialTimeout(p.protocol+"4", fmt.Sprintf("%s:%d", places[p.to], p.port), lost)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(lost))
	if p.protocol == "udp" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return false
		}
	}
	b := make([]byte, 64)
	n, err := conn.Read(b)
	if err != nil {
		return false
	}
	if got := strings.TrimSpace(string(b[:n])); got != p.to {
		l.t.Errorf("%s:%d: got an answer of %q, want %q", places[p.to], p.port, got, p.to)
	}
	return true
}

// open opens a connection that stays.
func (l *lab) open(p packet) net.Conn {
	l.t.Helper()
	var conn net.Conn
	l.spaces[p.from].Do(func() {
		var err error
		if conn, err = net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", places[p.to], p.port), lost); err != nil {
			l.t.Fatal(err)
		}
	})
	conn.SetDeadline(time.Now().Add(lost))
	if _, err := conn.Read(make([]byte, 64)); err != nil {
		l.t.Fatal(err)
	}
	return conn
}

// has says whether the world's places can be asked for such a packet: SCTP and other ports are for Compile's tests.
func (l *lab) has(p packet) bool {
	switch p.protocol {
	case "tcp":
		return p.port == 80 || p.port == 81 || p.port == 8080 || p.port == 8085
	case "udp":
		return p.port == 53 || p.port == 80
	}
	return false
}

func newNFT(t *testing.T) knftables.Interface {
	t.Helper()
	nft, err := knftables.New(knftables.IPv4Family, Table)
	if err != nil {
		t.Fatal(err)
	}
	return nft
}

// write compiles and writes the policies for the world.
func write(t *testing.T, w *Writer, in Input) *Rules {
	t.Helper()
	in.Epoch = w.Epoch()
	rules := Compile(in)
	if err := w.Write(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestKernelDoesWhatPoliciesMean(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	l := newLab(t)
	w := NewWriter(newNFT(t))
	// One writer goes from case to case, so each is also a change from the one before.
	for _, c := range semantics {
		t.Run(c.name, func(t *testing.T) {
			in := world()
			in.Policies = parsePolicies(t, c.policies...)
			write(t, w, in)
			l.t = t
			l.check(c.pass, true)
			l.check(c.refuse, false)
		})
	}
	l.t = t
	write(t, w, world())
	if got := listed(t, "chains") + " " + listed(t, "sets"); got != "forward,input self" {
		t.Errorf("without policies the table holds %s, want its fixed objects alone", got)
	}
}

// check asks for all packets at the same time: what is dropped takes long.
func (l *lab) check(packets []string, want bool) {
	var asking sync.WaitGroup
	for _, s := range packets {
		p := parsePacket(l.t, s)
		if !l.has(p) {
			continue
		}
		asking.Go(func() {
			if got := l.reaches(p); got != want {
				l.t.Errorf("%s: got through %v, want %v", s, got, want)
			}
		})
	}
	asking.Wait()
}

func listed(t *testing.T, kind string) string {
	t.Helper()
	names, err := newNFT(t).List(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, ",")
}

func TestRefusalsAreToldAtOnceAndTheNodeReachesItsPods(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	l := newLab(t)
	w := NewWriter(newNFT(t))
	in := world()
	in.Policies = parsePolicies(t, "x\npodSelector: {}\npolicyTypes: [Ingress, Egress]")
	write(t, w, in)
	l.spaces["y/a"].Do(func() {
		if _, err := net.DialTimeout("tcp4", places["x/a"].String()+":80", lost); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("got %v, want EHOSTUNREACH", err)
		}
	})
	// The node is in the process's own namespace; its probes pass.
	if !l.dial(packet{to: "x/a", protocol: "tcp", port: 80}) {
		t.Error("the node does not reach its own pod")
	}
	// A pod without egress does not reach the node either.
	listener, err := net.Listen("tcp4", gateway.String()+":9")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for from, want := range map[string]bool{"x/a": false, "y/a": true} {
		l.spaces[from].Do(func() {
			conn, err := net.DialTimeout("tcp4", listener.Addr().String(), lost)
			if got := err == nil; got != want {
				t.Errorf("%s to the node: got %v, want through %v", from, err, want)
			}
			if err == nil {
				conn.Close()
			}
		})
	}
}

func TestChangedPolicyEndsConnectionsThatStand(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	l := newLab(t)
	w := NewWriter(newNFT(t))
	in := world()
	in.Policies = parsePolicies(t, "x\npodSelector: {}\ningress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]")
	write(t, w, in)
	stays, ends, out := l.open(packet{"y/b", "x/a", "tcp", 80}), l.open(packet{"y/a", "x/a", "tcp", 80}), l.open(packet{"x/a", "y/a", "tcp", 81})
	for _, c := range []net.Conn{stays, ends, out} {
		defer c.Close()
		if !talks(c) {
			t.Fatal("a connection that is allowed does not talk")
		}
	}
	in.Policies = parsePolicies(t, "x\npodSelector: {}\ningress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: b}}}]}]")
	write(t, w, in)
	if !talks(stays) {
		t.Error("a connection that is still allowed does not talk any more")
	}
	if talks(ends) {
		t.Error("a connection that is no longer allowed talks on")
	}
	if !talks(out) {
		t.Error("a connection that the isolated pod opened does not talk any more")
	}
	// The pod's labels count as much as the policy.
	for i := range in.Pods {
		if in.Pods[i].UID == "y/b" {
			in.Pods[i].Labels = map[string]string{"app": "changed"}
		}
	}
	write(t, w, in)
	if talks(stays) {
		t.Error("a connection of a pod whose labels no longer allow it talks on")
	}
}

func talks(c net.Conn) bool {
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	n, err := c.Read(make([]byte, 64))
	return err == nil && n > 0
}

func TestAnotherProcessTakesOverWithoutAGap(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	l := newLab(t)
	in := world()
	in.Policies = parsePolicies(t, "x\npodSelector: {}\ningress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: http}]}]")
	write(t, NewWriter(newNFT(t)), in)

	// Throughout the second writing, nobody who is refused gets through.
	ctx, stop := context.WithCancel(t.Context())
	var trying sync.WaitGroup
	for range 4 {
		trying.Go(func() {
			for ctx.Err() == nil {
				if l.reaches(packet{"y/a", "x/a", "tcp", 80}) {
					t.Error("a refused connection got through while another process took over")
					return
				}
			}
		})
	}
	var second *Rules
	for range 5 {
		second = write(t, NewWriter(newNFT(t)), in)
	}
	stop()
	trying.Wait()
	l.check([]string{"x/b > x/a tcp 80", "outside > x/b tcp 8080"}, true)
	wantChains := len(second.Chains) + 2
	if got := strings.Count(listed(t, "chains"), ",") + 1; got != wantChains {
		t.Errorf("got %d chains, want %d: what stood before is not gone", got, wantChains)
	}
	wantSets := len(second.Sets) + 1
	if got := strings.Count(listed(t, "sets"), ",") + 1; got != wantSets {
		t.Errorf("got %d sets, want %d: what stood before is not gone", got, wantSets)
	}
}

func TestWhatSomebodyElseRemovedIsWrittenAgain(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	nft := newNFT(t)
	w := NewWriter(nft)
	in := world()
	in.Policies = parsePolicies(t, "x\npodSelector: {}")
	write(t, w, in)
	tx := nft.NewTransaction()
	tx.Delete(&knftables.Table{})
	if err := nft.Run(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	in.Policies = parsePolicies(t, "x\npodSelector: {}\npolicyTypes: [Egress]")
	in.Epoch = w.Epoch()
	if err := w.Write(t.Context(), Compile(in)); err == nil {
		t.Fatal("writing into a table that is gone: got no error")
	}
	rules := write(t, w, in)
	if got, want := strings.Count(listed(t, "chains"), ",")+1, len(rules.Chains)+2; got != want {
		t.Errorf("got %d chains, want %d", got, want)
	}
}

// A node full of pods, each under a policy of its own with many rules and peers, is what one transaction of a user
// namespace does not hold (0002).
func TestManyPoliciesAreWrittenInPortions(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	in := Input{Namespaces: map[string]map[string]string{"n": {}}}
	for i := range 160 {
		p := Pod{Namespace: "n", Name: fmt.Sprint("p", i), Local: i < 110, Labels: map[string]string{"id": fmt.Sprint(i)}}
		p.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})}
		in.Pods = append(in.Pods, p)
	}
	for i := range 110 {
		p := parsePolicies(t, fmt.Sprintf("n\npodSelector: {matchLabels: {id: '%d'}}\npolicyTypes: [Ingress, Egress]", i))[0]
		p.Name = fmt.Sprint("p", i)
		for r := range 5 {
			rule := parsePolicies(t, fmt.Sprintf("n\npodSelector: {}\ningress: [{from: [{podSelector: {matchExpressions: [{key: id, operator: NotIn, values: ['%d', '%d']}]}}], ports: [{port: %d}, {port: 100}, {port: 200, endPort: 300}]}]", i, r, 1000+r))[0]
			p.Spec.Ingress = append(p.Spec.Ingress, rule.Spec.Ingress...)
		}
		in.Policies = append(in.Policies, p)
	}
	w := NewWriter(newNFT(t))
	begun := time.Now()
	rules := write(t, w, in)
	elements := 0
	for _, s := range rules.Sets {
		elements += len(s.Elements)
	}
	if len(rules.Chains) != 111 {
		t.Errorf("got %d chains, want one for each pod's ingress and one for all egress", len(rules.Chains))
	}
	t.Logf("%d chains, %d sets, %d elements written in %v", len(rules.Chains), len(rules.Sets), elements, time.Since(begun))

	begun = time.Now()
	in.Pods[150].Addresses = []netip.Addr{netip.MustParseAddr("10.244.9.9")}
	write(t, w, in)
	t.Logf("one peer changed its address: %v", time.Since(begun))

	begun = time.Now()
	for _, p := range in.Policies {
		p.Spec.Ingress = append([]networkingv1.NetworkPolicyIngressRule(nil), p.Spec.Ingress[:3]...)
	}
	write(t, w, in)
	t.Logf("all policies changed: %v", time.Since(begun))
	write(t, w, Input{})
	if got := listed(t, "chains"); got != "forward,input" {
		t.Errorf("got chains %s, want forward,input", got)
	}
}
