package clusters

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// inside makes a plain pod and one that has all of its node, so that things are tried from both.
func (c *hosted) inside(t *testing.T) *space {
	t.Helper()
	s := c.space(t)
	s.start(t, prober("plain"), prober("root", asRoot, on("node-1")))
	return s
}

func TestNothingOfAnotherClusterIsReachedFromPodsNorFromNodes(t *testing.T) {
	t.Parallel()
	x := enter(t)
	ways := []struct{ from, to *hosted }{{x.one, x.two}, {x.two, x.one}}
	for _, way := range ways {
		t.Run("from "+way.from.name+" to "+way.to.name, func(t *testing.T) {
			t.Parallel()
			s, there := way.from.inside(t), way.to.space(t)
			there.start(t, prober("target"))
			target := there.podReady(t, "target")
			there.service(t, "target", corev1.ServiceTypeNodePort)
			svc, err := there.kube.CoreV1().Services(there.ns).Get(t.Context(), "target", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			plane := way.to.address(t, "control-plane")
			v, err := x.look(way.to.name)
			if err != nil {
				t.Fatal(err)
			}
			door := strings.TrimPrefix(v.Server, "https://") // for people, on the machine's own address
			closed := []string{door, plane + ":6443", plane + ":6444", plane + ":2379", plane + ":2380", plane + ":10257", plane + ":10259", target.Status.PodIP + ":8080"}
			for _, name := range way.to.nodes(t) {
				node := way.to.address(t, name)
				closed = append(closed, node+":10250", node+":10260", node+":10256", fmt.Sprintf("%s:%d", node, svc.Spec.Ports[0].NodePort))
			}
			for _, pod := range []string{"plain", "root"} {
				for address, open := range s.reach(t, pod, closed...) {
					if open && !s.own(t, address) {
						t.Errorf("%s pod of %s reaches %s of %s", pod, s.name, address, way.to.name)
					}
				}
				for _, name := range []string{"target." + there.ns + ".svc.cluster.local", "control-plane." + way.to.name + ".kubernetes.mesos", way.to.name + "-control-plane.kubernetes.mesos"} {
					if got := s.ask(t, pod, "lookup", name); !strings.Contains(got, "unknown") {
						t.Errorf("%s pod of %s finds %s", pod, s.name, got)
					}
				}
			}
			// The search finds what is there: what is closed is reached from the cluster itself.
			home := way.to.inside(t)
			for _, address := range []string{door, plane + ":6443", way.to.address(t, "node-1") + ":10250", target.Status.PodIP + ":8080"} {
				if !home.reach(t, "root", address)[address] {
					t.Errorf("%s of %s is not reached from its own node", address, way.to.name)
				}
			}
		})
	}
}

// own reports whether an address of the other cluster is one of this cluster too: both have the same ranges inside.
func (s *space) own(t testing.TB, address string) bool {
	t.Helper()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := s.kube.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if p.Status.PodIP == host {
			return true
		}
	}
	return false
}

// nodes are the names of a cluster's nodes.
func (c *hosted) nodes(t testing.TB) (names []string) {
	t.Helper()
	v, err := c.look(c.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range v.Members {
		if m.Name != "control-plane" {
			names = append(names, m.Name)
		}
	}
	return names
}

func TestTheDatacentersOwnPortsAreNotReachedFromPods(t *testing.T) {
	t.Parallel()
	x := enter(t)
	v, err := x.look(x.one.name)
	if err != nil {
		t.Fatal(err)
	}
	machine, _, _ := net.SplitHostPort(strings.TrimPrefix(v.Server, "https://"))
	_, agents, _ := net.SplitHostPort(x.Agents)
	_, plain, _ := net.SplitHostPort(x.HTTP)
	_, secure, _ := net.SplitHostPort(x.HTTPS)
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.inside(t)
		gateway := strings.TrimSpace(s.ask(t, "root", "cat", "/node/etc/resolv.conf"))
		bridge := ""
		for line := range strings.Lines(gateway) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
				bridge = f[1]
			}
		}
		if bridge == "" {
			t.Fatalf("the node's resolv.conf names no server: %q", gateway)
		}
		var closed []string
		for _, host := range []string{machine, bridge, "127.0.0.1"} {
			closed = append(closed, net.JoinHostPort(host, plain), net.JoinHostPort(host, agents), net.JoinHostPort(host, "2379"), net.JoinHostPort(host, "22"))
		}
		for _, pod := range []string{"plain", "root"} {
			for address, open := range s.reach(t, pod, closed...) {
				if open {
					t.Errorf("%s pod of %s reaches %s", pod, c.name, address)
				}
			}
			// The gateway is everybody's door; without a token it opens nothing.
			if got, err := s.try(t.Context(), pod, "get", "https://"+net.JoinHostPort(machine, secure)+"/kubernetes/v1/clusters"); err == nil && !strings.HasPrefix(got, "status 401") {
				t.Errorf("%s pod of %s gets %q of the gateway", pod, c.name, got)
			}
		}
	})
}

func TestAnotherClustersCredentialsAreWorthNothing(t *testing.T) {
	t.Parallel()
	x := enter(t)
	for _, way := range []struct{ from, to *hosted }{{x.one, x.two}, {x.two, x.one}} {
		t.Run("of "+way.from.name+" in "+way.to.name, func(t *testing.T) {
			t.Parallel()
			foreign := rest.CopyConfig(way.from.config)
			foreign.Host, foreign.TLSClientConfig.CAData = way.to.config.Host, way.to.config.TLSClientConfig.CAData
			k, err := kubernetes.NewForConfig(foreign)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
				t.Errorf("a foreign certificate: %v, want unauthorized", err)
			}
			s := way.from.space(t)
			s.start(t, prober("pod"))
			foreign.TLSClientConfig.CertData, foreign.TLSClientConfig.KeyData = nil, nil
			foreign.BearerToken = s.ask(t, "pod", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
			if k, err = kubernetes.NewForConfig(foreign); err != nil {
				t.Fatal(err)
			}
			if _, err := k.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
				t.Errorf("a foreign service account: %v, want unauthorized", err)
			}
			// An administrator of a cluster is neither its steward's master nor its tunnels', and of another cluster even less.
			for _, who := range []*hosted{way.from, way.to} {
				cert, err := tls.X509KeyPair(who.config.CertData, who.config.KeyData)
				if err != nil {
					t.Fatal(err)
				}
				for _, address := range []string{way.to.address(t, "control-plane") + ":6444", way.to.address(t, "node-1") + ":10260"} {
					if status, err := knock(t.Context(), address, cert); err == nil && status < 400 {
						t.Errorf("%s answers an administrator of %s with %d", address, who.name, status)
					}
				}
			}
		})
	}
}

// knock asks for /v1/status with a certificate, whoever answers.
func knock(ctx context.Context, address string, cert tls.Certificate) (int, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}}}
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+address+"/v1/status", nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func TestAPrivilegedPodOwnsItsNodeAndNothingOfTheMachine(t *testing.T) {
	t.Parallel()
	x := enter(t)
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.inside(t)
		for line := range strings.Lines(s.ask(t, "root", "power")) {
			if !strings.Contains(line, "refused") {
				t.Errorf("%s: %s", c.name, line)
			}
		}
		// What is the node's is the pod's: that is what privileged means.
		s.ask(t, "root", "write", "/node/var/marina-proof", "mine")
		if got := s.ask(t, "root", "cat", "/node/var/marina-proof"); got != "mine" {
			t.Errorf("%s: the node's disk holds %q", c.name, got)
		}
		var paths []string
		for _, root := range []string{"/node", "/proc/1/root"} {
			for _, path := range []string{x.State, x.Reports, "/root", "/home", "/var/lib/marina/agent", "/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/loop0", "/dev/loop-control", "/boot"} {
				if path == "/root" || path == "/home" || path == "/boot" {
					path += "/."
				}
				paths = append(paths, root+path)
			}
		}
		for line := range strings.Lines(s.ask(t, "root", append([]string{"find"}, paths...)...)) {
			if strings.Contains(line, " there") {
				t.Errorf("%s: %s", c.name, strings.TrimSpace(line))
			}
		}
		if ids := s.ask(t, "root", "cat", "/proc/self/uid_map"); strings.Fields(ids)[1] == "0" {
			t.Errorf("%s: root of the node is root of the machine: %s", c.name, ids)
		}
		if cmd := s.ask(t, "root", "cat", "/proc/1/cmdline"); !strings.HasPrefix(cmd, "/opt/marina/kubernetes/node/marina-node") {
			t.Errorf("%s: the first process that a pod with hostPID sees is %q", c.name, cmd)
		}
		if got := s.ask(t, "plain", "find", "/node", "/proc/kcore/x", x.State); strings.Contains(got, " there") {
			t.Errorf("%s: a plain pod sees %s", c.name, got)
		}
	})
}
