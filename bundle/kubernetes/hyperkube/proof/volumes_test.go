package proof

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// nodeTunnel stands for what a node listens with: it connects, and says what volumes it was asked for.
type nodeTunnel struct {
	mu    sync.Mutex
	asked []string
}

func (n *nodeTunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ask := r.Method + " " + r.URL.Path
	if r.Method == http.MethodConnect {
		ask = r.Method + " " + r.Host
	}
	n.mu.Lock()
	n.asked = append(n.asked, ask)
	n.mu.Unlock()
	if r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err == nil {
		conn.Write(b)
	}
}

func (n *nodeTunnel) was(ask string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.asked {
		if strings.HasPrefix(a, ask) {
			return nil
		}
	}
	return fmt.Errorf("the node was asked for %q, want %s", n.asked, ask)
}

// outside is an address of this machine that a node could have.
func outside(t *testing.T) string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

const claimYAML = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s, annotations: {volume.kubernetes.io/selected-node: n1}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: %s}}}
`

func TestNodeTunnelsCarryConnectionsAndVolumes(t *testing.T) {
	address := outside(t)
	eachMinor(t, func(t *testing.T, program, _ string) {
		p := newStewarded(t, program, true)
		p.ca.issue(t, "nodenet", "marina:nodenet:n1", "marina:nodenet", address)
		own, err := tls.LoadX509KeyPair(p.dir+"/pki/nodenet.crt", p.dir+"/pki/nodenet.key")
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp", net.JoinHostPort(address, p.tunnel), &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: p.pool(t), ClientAuth: tls.RequireAndVerifyClientCert})
		if err != nil {
			t.Fatal(err)
		}
		node := &nodeTunnel{}
		srv := &http.Server{Handler: node}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })

		p.up(t)
		p.mustApply(t, fmt.Sprintf(nodeYAML, "n1", address, "True"))
		eventually(t, func() error {
			if got := p.connect(t, "10.96.0.77:443"); !strings.HasPrefix(got, "200") {
				return fmt.Errorf("a connection to a Service: %s, want 200", got)
			}
			return node.was("CONNECT 10.96.0.77:443")
		})
		p.eventuallyGet(t, "storageclass.storage.k8s.io/local", "storageclass", "-o", "name")
		p.mustApply(t, fmt.Sprintf(claimYAML+"---"+claimYAML, "data", "1Gi", "huge", "11Gi"))
		p.eventuallyGet(t, "Bound", "pvc", "data", "-o", "jsonpath={.status.phase}")
		uid := p.kubectl(t, "get", "pvc", "data", "-o", "jsonpath={.metadata.uid}")
		p.eventuallyGet(t, "/var/lib/marina/volumes/pvc-"+uid, "pv", "pvc-"+uid, "-o", "jsonpath={.spec.local.path}")
		if err := node.was("POST /v1/volumes/pvc-" + uid); err != nil {
			t.Error(err)
		}
		eventually(t, func() error {
			out, err := p.tryKubectl("get", "events", "-o", "jsonpath={.items[?(@.involvedObject.name=='huge')].message}")
			if err == nil && !strings.Contains(out, "11Gi requested, but node n1 has 10Gi in all") {
				err = fmt.Errorf("events of the claim that is too large: %q", out)
			}
			return err
		})
		p.kubectl(t, "delete", "pvc", "data", "huge", "--wait=false")
		p.eventuallyGet(t, "", "pv", "-o", "name")
		if err := node.was("DELETE /v1/volumes/pvc-" + uid); err != nil {
			t.Error(err)
		}
	})
}
