package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/identity"
)

var (
	plane = Subject{Plane: netip.MustParseAddr("10.128.0.2"), Services: netip.MustParseAddr("10.96.0.1"),
		Domain: "cluster.local",
		Hosts:  []string{"m1.example", "192.0.2.1"}}
	node = Subject{Node: "node-1", Address: netip.MustParseAddr("10.128.0.3"), Plane: plane.Plane,
		Services: plane.Services}
)

func authorities(t *testing.T, cluster string, now time.Time) *Authorities {
	t.Helper()
	a, err := New(cluster, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func filesOf(t *testing.T, a *Authorities, s Subject, now time.Time) map[string][]byte {
	t.Helper()
	files, err := a.Files(s, true, now)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCertificatesAreMadeAnewInTime(t *testing.T) {
	now := time.Now()
	a := authorities(t, "a", now)
	for _, s := range []Subject{plane, node} {
		files := filesOf(t, a, s, now)
		if Stale(files, s, now) {
			t.Errorf("%q: stale when made", s.Node)
		}
		if Stale(files, s, now.Add(59*24*time.Hour)) {
			t.Errorf("%q: stale with 31 of 90 days left", s.Node)
		}
		if !Stale(files, s, now.Add(61*24*time.Hour)) {
			t.Errorf("%q: not stale with 29 of 90 days left", s.Node)
		}
		moved := s
		moved.Plane, moved.Address = netip.MustParseAddr("10.128.9.2"), netip.MustParseAddr("10.128.9.3")
		if !Stale(files, moved, now) {
			t.Errorf("%q: not stale at another address", s.Node)
		}
		for name := range files {
			if !strings.HasSuffix(name, ".crt") || strings.Contains(name, "ca") || strings.HasPrefix(name, "front-proxy") {
				continue
			}
			broken := map[string][]byte{}
			for n, raw := range files {
				broken[n] = raw
			}
			broken[name] = raw(broken[name])
			if !Stale(broken, s, now) {
				t.Errorf("%q: not stale with a broken %s", s.Node, name)
			}
		}
	}
}

func raw(b []byte) []byte { return b[:len(b)/2] }

func TestMembersGetTheirOwnKeysAndNoOthers(t *testing.T) {
	now := time.Now()
	a := authorities(t, "a", now)
	of := filesOf(t, a, node, now)
	for _, name := range []string{"ca.key", "sa.key", "encryption.yaml", "front-proxy-client.key", "steward.key",
		"apiserver.key"} {
		if of[name] != nil {
			t.Errorf("a node is given %s", name)
		}
	}
	all := filesOf(t, a, plane, now)
	for _, name := range []string{"ca.crt", "ca.key", "sa.key", "sa.pub", "encryption.yaml", "front-proxy-ca.crt",
		"apiserver.crt", "steward.crt"} {
		if len(all[name]) == 0 {
			t.Errorf("the control plane lacks %s", name)
		}
	}
	plain, err := a.Files(plane, false, now)
	if err != nil || plain["encryption.yaml"] != nil {
		t.Errorf("without encryption: %v, and its key is given", err)
	}
	for name := range all {
		key, isCert := strings.CutSuffix(name, ".crt")
		if !isCert || name == "front-proxy-ca.crt" {
			continue
		}
		if _, err := tls.X509KeyPair(all[name], all[key+".key"]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Kubernetes tells users by what their certificates say.
func TestCertificatesSayWhoOneIs(t *testing.T) {
	now := time.Now()
	a := authorities(t, "a", now)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CA)
	for _, c := range []struct {
		of                *Subject
		file, name, group string
		host              string // "": it serves nobody
	}{
		{&plane, "apiserver", "kube-apiserver", "", "kubernetes.default.svc.cluster.local"},
		{&plane, "apiserver", "kube-apiserver", "", "192.0.2.1"},
		{&plane, "scheduler", "system:kube-scheduler", "", ""},
		{&plane, "steward", "marina:steward", "system:masters", "steward"},
		{&node, "kubelet", "system:node:node-1", "system:nodes", ""},
		{&node, "kubelet-server", "system:node:node-1", "system:nodes", "10.128.0.3"},
		{&node, "nodenet", "marina:nodenet:node-1", "marina:nodenet", "node-1"},
	} {
		cert, err := parseCert(filesOf(t, a, *c.of, now)[c.file+".crt"])
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(cert.Subject.Organization, ","); cert.Subject.CommonName != c.name || got != c.group {
			t.Errorf("%s is of %s in %q, want %s in %q", c.file, cert.Subject.CommonName, got, c.name, c.group)
		}
		usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if c.host != "" {
			usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: c.host, KeyUsages: usages,
			CurrentTime: now}); err != nil {
			t.Errorf("%s for %q: %v", c.file, c.host, err)
		}
		if serves := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth); serves != (c.host != "") {
			t.Errorf("%s serves: %v, want %v", c.file, serves, c.host != "")
		}
	}
	other := x509.NewCertPool()
	other.AppendCertsFromPEM(authorities(t, "b", now).CA)
	cert, err := parseCert(filesOf(t, a, node, now)["kubelet.crt"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: other,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("another cluster knows a's node")
	}
}

func TestWhatIsSealedOpensAsItsRowOnly(t *testing.T) {
	root, err := identity.NewRootKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	a := authorities(t, "a", time.Now())
	sealed, err := Seal(root, "keys/a", a)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Open[*Authorities](root, "keys/a", sealed)
	if err != nil || !bytes.Equal(back.CAKey, a.CAKey) || !bytes.Equal(back.Encryption, a.Encryption) {
		t.Errorf("opened: %v, and it is another", err)
	}
	if row, err := json.Marshal(sealed); err != nil || bytes.Contains(row, []byte("PRIVATE")) {
		t.Errorf("the row says a key, or %v", err)
	}
	if _, err := Open[*Authorities](root, "keys/b", sealed); err == nil {
		t.Error("it opens in another row")
	}
	if _, err := Open[[]int](root, "keys/a", sealed); err == nil {
		t.Error("it opens as something else")
	}
	for _, broken := range [][]byte{nil, []byte("x"), a.CA[:40]} {
		b := *a
		b.CA = broken
		if _, err := b.Issue(Identity{Name: "x"}, time.Now(), time.Hour); err == nil {
			t.Errorf("an authority of %q signs", broken)
		}
		b = *a
		b.CAKey = broken
		if _, err := b.Issue(Identity{Name: "x"}, time.Now(), time.Hour); err == nil {
			t.Errorf("a key of %q signs", broken)
		}
	}
}
