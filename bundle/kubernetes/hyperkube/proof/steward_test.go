package proof

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stewarded is a control plane with a steward and an add-ons bundle of its own.
type stewarded struct {
	*plane
	api, tunnel string // HOST:PORT of the steward, port of nodes' tunnels
	client      *http.Client
}

func newStewarded(t *testing.T, program string, privileged bool) *stewarded {
	p := &stewarded{plane: newPlane(t, program), api: freeAddress(t, "127.0.0.1")}
	_, p.tunnel, _ = net.SplitHostPort(freeAddress(t, "0.0.0.0"))
	bundle := filepath.Join(p.dir, "addons")
	if err := os.CopyFS(filepath.Join(bundle, "manifests"), os.DirFS("../../addons/manifests")); err != nil {
		t.Fatal(err)
	}
	for name, ref := range map[string]string{"coredns": "docker.io/marinaos/coredns:v1", "metrics-server": "docker.io/marinaos/metrics-server:v2", "pause": "registry.k8s.io/pause:3"} {
		writeImage(t, bundle, name, ref)
	}
	cfg := fmt.Sprintf(`{"listen":%q,"addons":%q,"clusterDNS":"10.96.0.10","clusterDomain":"cluster.local","serviceCIDR":"10.96.0.0/16",
		"clusterCIDR":"10.244.0.0/16","privileged":%v,"egressSocket":%q,"tunnelPort":%s}`, p.api, bundle, privileged, p.egress(), p.tunnel)
	if err := os.WriteFile(filepath.Join(p.dir, "steward-config.json"), []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	p.client = p.as(t, "datacenter")
	return p
}

func (p *stewarded) egress() string { return filepath.Join(p.dir, "run", "egress.sock") }

func (p *stewarded) up(t *testing.T, args ...string) {
	t.Helper()
	p.plane.up(t, append([]string{"--cluster-cidr=10.244.0.0/16", "--steward-config=" + filepath.Join(p.dir, "steward-config.json")}, args...)...)
}

// as is a client that shows one of the certificates.
func (p *stewarded) as(t *testing.T, name string) *http.Client {
	pki := filepath.Join(p.dir, "pki")
	own, err := tls.LoadX509KeyPair(pki+"/"+name+".crt", pki+"/"+name+".key")
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.pool(t), Certificates: []tls.Certificate{own}}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 40 * time.Second}
}

func (p *stewarded) pool(t *testing.T) *x509.CertPool {
	pem, err := os.ReadFile(filepath.Join(p.dir, "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// status is what these tests read of the steward's.
type status struct {
	Rev     string
	Version string
	Ready   bool
	Addons  struct {
		Applied bool
		Error   string
	}
	Nodes         []struct{ Name, Address string }
	LoadBalancers []struct {
		Name  string
		Ports []struct{ Port, NodePort int }
	}
	Waiting []string
}

func (p *stewarded) status(after string) (s status, err error) {
	res, err := p.client.Get("https://" + p.api + "/v1/status?after=" + after)
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s)
}

func (p *stewarded) desire(t *testing.T, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, "https://"+p.api+"/v1/desired", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(res.Body)
		t.Fatalf("PUT /v1/desired: %s: %s", res.Status, text)
	}
}

// apply makes objects, as an administrator would.
func (p *stewarded) apply(t *testing.T, yaml string) (string, error) {
	cmd := p.kubectlCommand("create", "-f", "-", "--validate=false")
	cmd.Stdin = strings.NewReader(yaml)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *stewarded) mustApply(t *testing.T, yaml string) {
	t.Helper()
	if out, err := p.apply(t, yaml); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// eventuallyGet waits until kubectl get says want; of what is not there it says nothing.
func (p *stewarded) eventuallyGet(t *testing.T, want string, args ...string) {
	t.Helper()
	eventually(t, func() error {
		got, err := p.tryKubectl(append([]string{"get", "--ignore-not-found"}, args...)...)
		if err == nil && strings.TrimSpace(got) != want {
			err = fmt.Errorf("kubectl get %s: %q, want %q", strings.Join(args, " "), strings.TrimSpace(got), want)
		}
		return err
	})
}

// connect asks the egress proxy for a connection and returns its answer's status.
func (p *stewarded) connect(t *testing.T, target string) string {
	t.Helper()
	conn, err := net.Dial("unix", p.egress())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", target)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.Status
}

func freeAddress(t *testing.T, host string) string {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// writeImage makes an archive that has a reference and nothing else.
func writeImage(t *testing.T, bundle, name, ref string) {
	text := fmt.Sprintf(`{"manifests":[{"annotations":{"io.containerd.image.name":%q}}]}`, ref)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "index.json", Size: int64(len(text)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, text)
	w.Close()
	if err := os.MkdirAll(filepath.Join(bundle, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "images", name+".tar"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

const nodeYAML = `
apiVersion: v1
kind: Node
metadata: {name: %s, labels: {kubernetes.io/hostname: %[1]s}}
status:
  addresses: [{type: InternalIP, address: %s}]
  allocatable: {ephemeral-storage: 10Gi, cpu: "1", memory: 1Gi, pods: "10"}
  conditions: [{type: Ready, status: %q, reason: Test, message: made by a test}]
`

const extraAddon = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: kube-system}\ndata: {a: b}\n"

func TestStewardDoesWhatIsDesiredAndGoesOnAfterARestart(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, minor string) {
		p := newStewarded(t, program, true)
		extra := filepath.Join(p.dir, "addons", "manifests", "90-extra.yaml")
		if err := os.WriteFile(extra, []byte(extraAddon), 0o644); err != nil {
			t.Fatal(err)
		}
		p.up(t)
		p.appliesAddons(t, minor)
		if got := p.kubectl(t, "-n", "kube-system", "get", "configmap", "extra", "-o", "jsonpath={.metadata.labels}"); !strings.Contains(got, "90-extra") {
			t.Errorf("the extra add-on is labelled %s, want its manifest's name", got)
		}
		for _, name := range []string{"admin", "steward"} {
			if res, err := p.as(t, name).Get("https://" + p.api + "/v1/status"); err == nil {
				t.Errorf("the steward answers %s with %s, want only the datacenter to be served", name, res.Status)
			}
		}

		for i, name := range []string{"node-1", "node-2", "theirs"} {
			p.mustApply(t, fmt.Sprintf(nodeYAML, name, fmt.Sprintf("203.0.113.%d", i+1), "False"))
		}
		p.mustApply(t, "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}")
		eventually(t, func() error {
			s, err := p.status("")
			if err == nil && (len(s.Nodes) != 3 || len(s.LoadBalancers) != 1 || s.LoadBalancers[0].Ports[0].NodePort == 0) {
				err = fmt.Errorf("status %+v, want three nodes and a load balancer with a node port", s)
			}
			return err
		})
		p.desire(t, `{"nodes":["node-1"],"loadBalancers":[{"namespace":"default","name":"web","ingress":["198.18.0.7"],"published":{"80":"192.0.2.1:10080"}}]}`)
		p.eventuallyGet(t, "node/node-1\nnode/theirs", "nodes", "-o", "name")
		p.eventuallyGet(t, "198.18.0.7 VIP", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip} {.status.loadBalancer.ingress[0].ipMode}")
		p.eventuallyGet(t, `{"80":"192.0.2.1:10080"}`, "service", "web", "-o", `jsonpath={.metadata.annotations.marina\.io/published}`)

		p.kill()
		if err := os.Remove(extra); err != nil {
			t.Fatal(err)
		}
		p.up(t)
		p.eventuallyGet(t, "", "-n", "kube-system", "configmap", "extra", "-o", "name")
		p.mustApply(t, fmt.Sprintf(nodeYAML, "node-2", "203.0.113.2", "False"))
		p.eventuallyGet(t, "node/node-1\nnode/theirs", "nodes", "-o", "name")
		p.desire(t, `{"nodes":["node-1"],"loadBalancers":[]}`)
		p.eventuallyGet(t, "", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress}")

		// Aggregated APIs that no node can serve would keep every namespace from being deleted.
		p.desire(t, `{"nodes":[],"loadBalancers":[]}`)
		p.eventuallyGet(t, "", "apiservice", "v1beta1.metrics.k8s.io", "-o", "name")
		p.desire(t, `{"nodes":["node-1"],"loadBalancers":[]}`)
		p.eventuallyGet(t, "apiservice.apiregistration.k8s.io/v1beta1.metrics.k8s.io", "apiservice", "v1beta1.metrics.k8s.io", "-o", "name")
	})
}

func (p *stewarded) appliesAddons(t *testing.T, minor string) {
	t.Helper()
	eventually(t, func() error {
		s, err := p.status("")
		if err == nil && (!s.Addons.Applied || !s.Ready || !strings.HasPrefix(s.Version, minor+".")) {
			err = fmt.Errorf("status %+v, want add-ons applied, ready, a version of %s", s, minor)
		}
		return err
	})
	p.eventuallyGet(t, "docker.io/marinaos/coredns:v1", "-n", "kube-system", "deployment", "coredns", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	p.eventuallyGet(t, "10.96.0.10", "-n", "kube-system", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}")
	p.eventuallyGet(t, "storageclass.storage.k8s.io/local", "storageclass", "-o", "name")
	p.eventuallyGet(t, "apiservice.apiregistration.k8s.io/v1beta1.metrics.k8s.io", "apiservice", "v1beta1.metrics.k8s.io", "-o", "name")
	eventually(t, func() error { // without a node, and that is what it says
		s, err := p.status("")
		if err == nil && !strings.Contains(strings.Join(s.Waiting, "\n"), "no nodes available") {
			err = fmt.Errorf("waiting for %q, want CoreDNS to wait for a node", s.Waiting)
		}
		return err
	})
}

func TestEgressLeadsIntoTheClusterOnly(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, _ string) {
		p := newStewarded(t, program, true)
		p.up(t)
		eventually(t, func() error { _, err := os.Stat(p.egress()); return err })
		for target, want := range map[string]string{
			"192.0.2.50:5432":                   "403",
			"127.0.0.1:22":                      "403",
			"169.254.169.254:80":                "403",
			"hello.marathon.l4lb.example:80":    "403",
			"10.96.0.10:53":                     "503 no node is ready",
			"10.244.3.4:80":                     "503 no node is ready",
			strings.Repeat("1", 5<<10) + ":80/": "400",
		} {
			if got := p.connect(t, target); !strings.HasPrefix(got, want) {
				t.Errorf("%.30s: the proxy answers %s, want %s", target, got, want)
			}
		}
		// The API server goes that way: what it may not reach by it, it does not reach.
		p.mustApply(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: foreign}
webhooks:
- name: foreign.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "https://192.0.2.50:5432/"}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
`)
		eventually(t, func() error {
			out, err := p.tryKubectl("create", "configmap", "--dry-run=server", "thing")
			if err == nil || !strings.Contains(out, "code 403") {
				return fmt.Errorf("with a webhook in the datacenter: %v %s, want a refusal by the proxy", err, out)
			}
			return nil
		})
	})
}

func TestAnonymousRequestsAreForProbes(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, _ string) {
		p := newPlane(t, program)
		p.up(t, "--audit")
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		for path, want := range map[string]int{"/readyz": 200, "/livez": 200, "/healthz": 200, "/version": 401, "/api": 401, "/readyz/etcd": 401} {
			res, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d%s", p.port[0], path))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s without a certificate: %s, want %d", path, res.Status, want)
			}
		}
		p.kubectl(t, "create", "namespace", "noticed")
		eventually(t, func() error {
			log, err := os.ReadFile(filepath.Join(p.dir, "audit", "audit.log"))
			if err == nil && !bytes.Contains(log, []byte(`"name":"noticed"`)) {
				err = fmt.Errorf("the audit log of %d bytes does not say that a namespace was made", len(log))
			}
			return err
		})
	})
}

const privilegedPod = `
apiVersion: v1
kind: Pod
metadata: {name: mighty, namespace: %s}
spec: {automountServiceAccountToken: false, containers: [{name: a, image: a, securityContext: {privileged: true}}]}
`

func TestWithoutUserNamespacesBaselineIsTheLeast(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, minor string) {
		p := newStewarded(t, program, false)
		p.up(t)
		p.appliesAddons(t, minor)
		for _, ns := range []string{"default", "kube-system"} {
			if out, err := p.apply(t, fmt.Sprintf(privilegedPod, ns)); err == nil || !strings.Contains(out, "violates PodSecurity") {
				t.Errorf("a privileged pod in %s: %v %s, want it refused", ns, err, out)
			}
		}
		p.kubectl(t, "label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted")
		out, err := p.tryKubectl("label", "--overwrite", "namespace", "default", "pod-security.kubernetes.io/enforce=privileged")
		if err == nil || !strings.Contains(out, "baseline is the least") {
			t.Errorf("a namespace labelled privileged: %v %s, want it refused", err, out)
		}
		out, err = p.tryKubectl("patch", "namespace", "default", "--subresource=status", "--type=merge", "-p", `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`)
		if err == nil || !strings.Contains(out, "baseline is the least") {
			t.Errorf("a namespace labelled privileged by its status: %v %s, want it refused", err, out)
		}
		out, err = p.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: mighty, labels: {pod-security.kubernetes.io/enforce: privileged}}")
		if err == nil || !strings.Contains(out, "baseline is the least") {
			t.Errorf("a new namespace labelled privileged: %v %s, want it refused", err, out)
		}
	})
}
