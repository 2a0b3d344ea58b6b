package steward

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// egressOf serves the egress of a steward, and returns how to connect to it and how to end it.
func egressOf(t *testing.T, c *cluster) (dial func() net.Conn, end func() error) {
	t.Helper()
	c.cfg.EgressSocket = filepath.Join(t.TempDir(), "egress.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.serveEgress(ctx) }()
	t.Cleanup(cancel)
	dial = func() (conn net.Conn) {
		eventually(t, "it listens", func() bool {
			var err error
			conn, err = net.Dial("unix", c.cfg.EgressSocket)
			return err == nil
		})
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		return conn
	}
	return dial, func() error { cancel(); return <-done }
}

// say sends a request and returns the answer's status line.
func say(t *testing.T, conn net.Conn, request string) string {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return strings.TrimSpace(line)
}

func connectTo(target string) string { return "CONNECT " + target + " HTTP/1.1\r\nHost: x\r\n\r\n" }

// echo is a server that says what it hears.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); _, _ = io.Copy(conn, conn) }()
		}
	}()
	return l.Addr().String()
}

// A webhook must not make the API server a client of the datacenter.
func TestTheAPIServerReachesItsClusterAndNothingElse(t *testing.T) {
	allowed, other := echo(t), echo(t)
	c := newCluster(t, Desired{}, node("down", "10.128.0.9", "10.244.2.0/24", false))
	c.cfg.ServiceCIDR, c.cfg.ClusterCIDR = netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")
	c.cfg.Listen, c.cfg.EgressAllow = "10.128.0.5:6444", []string{allowed}
	dial, end := egressOf(t, c)
	for request, want := range map[string]string{
		connectTo(allowed):                   "200 connected",
		connectTo(other):                     "403 127.0.0.1 is no address of this cluster",
		connectTo("10.128.0.5:6443"):         "403 10.128.0.5 is no address",
		connectTo("169.254.169.254:80"):      "403",
		connectTo("metadata.internal:80"):    `403 "metadata.internal:80" is not ADDRESS:PORT`,
		connectTo("10.96.0.10"):              "403",
		connectTo("10.96.0.10:53"):           "503 no node is ready",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":  "405",
		connectTo(allowed) + "and more":      "400",
		"hello\r\n\r\n":                      "400",
		strings.Repeat("x", maxAsk) + "\r\n": "400",
	} {
		if got := say(t, dial(), request); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%.60q: got %q, want %q", request, got, want)
		}
	}
	conn := dial()
	if _, err := io.WriteString(conn, connectTo(allowed)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for _, want := range []string{"HTTP/1.1 200 connected\r\n", "\r\n"} {
		if line, err := in.ReadString('\n'); err != nil || line != want {
			t.Fatalf("got %q, %v, want %q", line, err, want)
		}
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("through it: got %q, %v", line, err)
	}
	if err := end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := in.ReadString('\n'); err == nil {
		t.Error("a connection outlives it")
	}
}

// A node whose tunnel does not answer is not the last that is tried; what a tunnel refuses, another would too.
func TestAnotherTunnelIsTriedUntilOneAnswers(t *testing.T) {
	c := newCluster(t, Desired{})
	c.deps = *testPKI(t, nil) // which has no certificate of a steward: every tunnel fails
	c.tunnel = &tunnel{deps: &c.deps, port: 1}
	c.cfg.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	var names []string
	for n := range triesAtMost + 2 {
		names = append(names, fmt.Sprint("node-", n+1))
		c.see(node(names[n], fmt.Sprint("10.128.0.", n+10), "", true))
	}
	_, err := c.dialOut(t.Context(), "10.96.0.10:53")
	if err == nil || !strings.Contains(err.Error(), "node node-") || !strings.Contains(err.Error(), "steward.crt") {
		t.Errorf("got %v, want which node and why", err)
	}
	if n := len(each[corev1.Node](c.seen.nodes)); n != len(names) {
		t.Errorf("%d nodes are seen, want %d", n, len(names))
	}
}

func TestSoManyConnectionsAreServedAndNoMore(t *testing.T) {
	c := newCluster(t, Desired{})
	dial, end := egressOf(t, c)
	open := make([]net.Conn, maxEgress)
	for n := range open {
		open[n] = dial()
	}
	one := dial()
	if line, err := bufio.NewReader(one).ReadString('\n'); err != nil || !strings.Contains(line, "503 more than 512") {
		t.Errorf("one more: got %q, %v", line, err)
	}
	for _, conn := range open {
		conn.Close()
	}
	eventually(t, "there is room again", func() bool {
		conn := dial()
		defer conn.Close()
		_, _ = io.WriteString(conn, connectTo("x"))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.Contains(line, "403")
	})
	if err := end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
