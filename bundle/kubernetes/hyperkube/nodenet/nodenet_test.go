package nodenet

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/netspace"
	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/nodenet/tunnel"
)

const within = 2 * time.Minute // a cold start on a loaded machine

func TestNodeFileIsChecked(t *testing.T) {
	const good = `{"name":"node-1","address":"10.128.0.7","server":"https://10.128.0.5:6443","minor":"v1.37","serviceCIDR":"10.96.0.0/16","clusterCIDR":"10.244.0.0/16","vni":4097,"labels":{"k":"v"}}`
	file := filepath.Join(t.TempDir(), "node.json")
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{`"node-1"`, `""`, `name ""`},
		{`"node-1"`, `"Node-1"`, `name "Node-1"`},
		{`"10.128.0.7"`, `"fd00::7"`, `address "fd00::7"`},
		{`"https:`, `"http:`, `server "http:`},
		{"4097", "0", "vni 0"},
		{"4097", "16777216", "vni 16777216"},
		{"10.96.0.0/16", "10.96.0.1/16", `serviceCIDR "10.96.0.1/16"`},
		{"10.96.0.0/16", "10.244.5.0/24", "overlaps"},
	} {
		if err := os.WriteFile(file, []byte(strings.Replace(good, c.old, c.new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		n, err := readNode(file)
		if c.want == "" {
			if err != nil || n.Name != "node-1" || n.VNI != 4097 || n.ClusterCIDR != netip.MustParsePrefix("10.244.0.0/16") {
				t.Errorf("got %+v, %v", n, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.new, err, c.want)
		}
	}
}

func TestProxyTakesItsFlags(t *testing.T) {
	if _, err := newProxy("/nonexistent", &Node{Name: "node-1", Address: netip.MustParseAddr("10.128.0.7"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16")}); err != nil {
		t.Error(err)
	}
}

// site is a control plane and one node, both in the process's own network namespace.
type site struct {
	t       *testing.T
	program string
	dir     string
	ca      *x509.Certificate
	key     *ecdsa.PrivateKey
	client  kubernetes.Interface
}

const (
	nodeAddress = "10.128.0.7"
	serverURL   = "https://127.0.0.1:6443"
)

// issue writes NAME.crt and NAME.key.
func (s *site) issue(name, user, group string, hosts ...string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	s.must(err)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: user}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if group != "" {
		c.Subject.Organization = []string{group}
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	parent, signer := s.ca, s.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature, nil
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	s.must(err)
	if s.ca == nil {
		s.key = key
		s.ca, err = x509.ParseCertificate(der)
		s.must(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	s.must(err)
	s.put("pki/"+name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	s.put("pki/"+name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	s.must(err)
	s.put("pki/"+name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
	s.put(name+".kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {certificate-authority: %q, server: %q}}]
users: [{name: u, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, s.at("pki/ca.crt"), serverURL, s.at("pki/"+name+".crt"), s.at("pki/"+name+".key")))
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) at(name string) string { return filepath.Join(s.dir, name) }

func (s *site) put(name string, content []byte) {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Dir(s.at(name)), 0o700))
	s.must(os.WriteFile(s.at(name), content, 0o600))
}

// start starts the program; what it says is shown if the test fails.
func (s *site) start(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(s.program, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	s.must(cmd.Start())
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		if s.t.Failed() {
			lines := strings.Split(said.String(), "\n")
			s.t.Logf("%s:\n%s", args[0], strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return cmd
}

// appears waits for a file.
func (s *site) appears(name string) {
	s.t.Helper()
	s.until(name, func() bool { _, err := os.Stat(s.at(name)); return err == nil })
}

// until asks again until ok: other processes are asked, which tell nobody.
func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); !ok(); <-tick.C {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %v", what, within)
		}
	}
}

func newSite(t *testing.T) *site {
	program, err := filepath.Abs("../../v1.37/bin/kubernetes-v1.37")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		if os.Getenv("MARINA_REQUIRE_REAL") != "" {
			t.Fatal("v1.37 is not built: make -C bundle/kubernetes")
		}
		t.Skip("v1.37 is not built: make -C bundle/kubernetes")
	}
	dir, err := os.MkdirTemp("", "site") // not t.TempDir, whose long names a socket's address has no room for
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, program: program, dir: dir}
	s.issue("ca", "ca", "")
	s.issue("front-proxy-ca", "front-proxy-ca", "")
	s.issue("front-proxy-client", "front-proxy-client", "")
	s.issue("apiserver", "kube-apiserver", "", "kubernetes", "localhost", "127.0.0.1", "10.96.0.1")
	s.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
	s.issue("controller-manager", "system:kube-controller-manager", "")
	s.issue("scheduler", "system:kube-scheduler", "")
	s.issue("sa", "sa", "")
	s.issue("admin", "admin", "system:masters")
	s.issue("nodenet", "marina:nodenet:node-1", "system:masters", nodeAddress) // rights come with the add-ons
	s.issue("proxy", "system:kube-proxy", "")
	s.issue("steward", tunnel.Client, "")
	s.put("node.json", []byte(`{"name":"node-1","address":"`+nodeAddress+`","server":"`+serverURL+`","serviceCIDR":"10.96.0.0/16","clusterCIDR":"10.244.0.0/16","vni":4097}`))

	must := s.must
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "outside"}))
	for _, name := range []string{"eth0", "outside"} {
		link, err := netlink.LinkByName(name)
		must(err)
		must(netlink.LinkSetUp(link))
		if name == "eth0" {
			must(netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(nodeAddress), Mask: net.CIDRMask(24, 32)}}))
			must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP("10.128.0.1")}))
		}
	}
	s.start("control-plane", "--data-dir="+s.at("data"), "--run-dir="+s.at("run"), "--pki-dir="+s.at("pki"), "--ready-file="+s.at("up"),
		"--bind-address=127.0.0.1", "--advertise-address="+nodeAddress, "--cluster-cidr=10.244.0.0/16")
	s.appears("up")
	conf, err := clientcmd.BuildConfigFromFlags("", s.at("admin.kubeconfig"))
	must(err)
	s.client, err = kubernetes.NewForConfig(conf)
	must(err)
	return s
}

func (s *site) network() *exec.Cmd {
	return s.start("node-network", "--config="+s.at("node.json"), "--pki-dir="+s.at("pki"), "--kubeconfig="+s.at("nodenet.kubeconfig"),
		"--proxy-kubeconfig="+s.at("proxy.kubeconfig"), "--cni-config="+s.at("cni/10-marina.conflist"), "--run-dir="+s.at("node"), "--volumes-dir="+s.at("volumes"))
}

func TestNodeNetworkFromStartToService(t *testing.T) {
	if !netspace.Inside(t) {
		return
	}
	s := newSite(t)
	network := s.network()

	// The kubelet's part: the Node. The controller-manager gives it a range.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	node, err := s.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	s.must(err)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddress}}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": node.Status.Addresses}})
	s.must(err)
	_, err = s.client.CoreV1().Nodes().Patch(t.Context(), "node-1", "application/merge-patch+json", patch, metav1.PatchOptions{}, "status")
	s.must(err)
	s.appears("node/node-network.ready")
	if b, err := os.ReadFile(s.at("cni/10-marina.conflist")); err != nil || !strings.Contains(string(b), `"10.244.0.0/24"`) {
		t.Errorf("CNI configuration: got %v, %s", err, b)
	}

	// A pod behind a Service, by hand: no containerd here.
	pod, other := netspace.New(t), netspace.New(t)
	gateway := netip.MustParseAddr("10.244.0.1")
	pod.Pod("pod0", gateway, netip.MustParseAddr("10.244.0.2"))
	other.Pod("pod1", gateway, netip.MustParseAddr("10.244.0.3"))
	pod.Do(func() {
		l, err := net.Listen("tcp4", ":8080")
		s.must(err)
		t.Cleanup(func() { l.Close() })
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	})
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.80", Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}}}
	_, err = s.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{})
	s.must(err)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.2"}, NodeName: new("node-1")}},
		Ports: []discoveryv1.EndpointPort{{Name: new(""), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
	}
	_, err = s.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), slice, metav1.CreateOptions{})
	s.must(err)
	if got := s.throughTunnel("10.244.0.2:8080"); got != "hello" {
		t.Errorf("pod through the tunnel: got %s", got)
	}
	s.until("Service through the tunnel", func() bool { return s.throughTunnel("10.96.0.80:80") == "hello" })
	fromPod := func() (ok bool) {
		other.Do(func() {
			c, err := net.DialTimeout("tcp4", "10.96.0.80:80", 3*time.Second)
			if ok = err == nil; ok {
				c.Close()
			}
		})
		return ok
	}
	if !fromPod() {
		t.Error("a pod does not reach the Service")
	}

	// The pod of that address becomes known, and isolated.
	web := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	s.until("service account", func() bool {
		_, err := s.client.CoreV1().Pods("default").Create(t.Context(), web, metav1.CreateOptions{})
		return err == nil
	})
	_, err = s.client.CoreV1().Pods("default").Patch(t.Context(), "web", "application/merge-patch+json",
		[]byte(`{"status":{"phase":"Running","podIP":"10.244.0.2","podIPs":[{"ip":"10.244.0.2"}]}}`), metav1.PatchOptions{}, "status")
	s.must(err)
	_, err = s.client.NetworkingV1().NetworkPolicies("default").Create(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "deny"}}, metav1.CreateOptions{})
	s.must(err)
	s.until("isolation", func() bool { return !fromPod() })
	if got := s.throughTunnel("10.96.0.80:80"); got != "hello" {
		t.Errorf("the node to its isolated pod: got %s", got)
	}

	// Rules outlive the process, and the next one takes them over.
	s.must(network.Process.Signal(syscall.SIGTERM))
	if err := network.Wait(); err != nil {
		t.Errorf("after TERM: got %v, want exit 0", err)
	}
	if fromPod() {
		t.Error("without the process the pod is no longer isolated")
	}
	if _, err := os.Stat(s.at("node/node-network.ready")); err == nil {
		t.Error("ready without the process")
	}
	s.network()
	s.appears("node/node-network.ready")
	if fromPod() {
		t.Error("after a restart the pod is no longer isolated")
	}
	s.must(s.client.NetworkingV1().NetworkPolicies("default").Delete(t.Context(), "deny", metav1.DeleteOptions{}))
	s.until("end of isolation", fromPod)
}

// throughTunnel asks target by HTTP, as the steward does, and returns the answer or what went wrong.
func (s *site) throughTunnel(target string) string {
	pair, err := tls.LoadX509KeyPair(s.at("pki/steward.crt"), s.at("pki/steward.key"))
	s.must(err)
	pool := x509.NewCertPool()
	pool.AddCert(s.ca)
	conn, err := tls.Dial("tcp", fmt.Sprintf("%s:%d", nodeAddress, TunnelPort), &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	r := bufio.NewReader(conn)
	for _, request := range []string{"", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"} {
		io.WriteString(conn, request)
		var asked *http.Request
		if request == "" {
			asked = &http.Request{Method: http.MethodConnect}
		}
		res, err := http.ReadResponse(r, asked)
		if err != nil {
			return err.Error()
		}
		if res.StatusCode != http.StatusOK {
			return res.Status
		}
		if request != "" {
			b, _ := io.ReadAll(res.Body)
			return string(b)
		}
	}
	return ""
}
