package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	planeReadyWithin = 3 * time.Minute
	planeStopWithin  = 30 * time.Second
)

// plane is a minor's control plane on loopback, without nodes, for the tests that need no more.
type plane struct {
	dir        string
	kubeconfig string
	cmd        *exec.Cmd
}

// startPlane starts one in a directory of its own.
func startPlane(ctx context.Context, program, log string) (*plane, error) {
	dir, err := os.MkdirTemp("", "plane") // short: etcd's sockets are in it
	if err != nil {
		return nil, err
	}
	p := &plane{dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig")}
	if err := p.start(ctx, program, log); err != nil {
		return nil, errors.Join(fmt.Errorf("control plane: %w, see %s", err, log), p.stop())
	}
	return p, nil
}

func (p *plane) start(ctx context.Context, program, log string) error {
	pki := filepath.Join(p.dir, "pki")
	if err := writePKI(pki); err != nil {
		return err
	}
	port, err := freePorts(3)
	if err != nil {
		return err
	}
	server := "https://127.0.0.1:" + port[0]
	if err := writeKubeconfig(p.kubeconfig, server, pki); err != nil {
		return err
	}
	p.cmd = exec.Command(program, "--data-dir="+filepath.Join(p.dir, "data"), "--run-dir="+filepath.Join(p.dir, "run"),
		"--pki-dir="+pki,
		"--bind-address=127.0.0.1", "--advertise-address=192.0.2.1", "--secure-port="+port[0],
		"--kube-controller-manager-arg=--secure-port="+port[1], "--kube-scheduler-arg=--secure-port="+port[2])
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close()
	p.cmd.Stderr = f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	said := make(chan string, 1)
	go func() { line, _ := bufio.NewReader(out).ReadString('\n'); said <- line }()
	select {
	case line := <-said:
		if !strings.HasPrefix(line, "ready "+server) {
			return fmt.Errorf("it said %q", line)
		}
		return nil
	case <-time.After(planeReadyWithin):
		return fmt.Errorf("not ready within %v", planeReadyWithin)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends the control plane and removes what it kept.
func (p *plane) stop() error {
	if p.cmd != nil {
		p.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(planeStopWithin, func() { p.cmd.Process.Kill() })
		p.cmd.Wait()
		kill.Stop()
	}
	return os.RemoveAll(p.dir)
}

func freePorts(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		out = append(out, port)
	}
	return out, nil
}

func writeKubeconfig(path, server, pki string) error {
	type named map[string]any
	b, err := json.MarshalIndent(named{
		"apiVersion": "v1", "kind": "Config", "current-context": "plane",
		"clusters": []named{{"name": "plane", "cluster": named{"server": server, "certificate-authority": pki + "/ca.crt"}}},
		"users": []named{{"name": "admin", "user": named{"client-certificate": pki + "/admin.crt", "client-key": pki +
			"/admin.key"}}},
		"contexts": []named{{"name": "plane", "context": named{"cluster": "plane", "user": "admin"}}},
	}, "", " ") // YAML too
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// issuer signs certificates and writes them to a directory under the names that kubeadm gives them.
type issuer struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func writePKI(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newIssuer(dir, "ca")
	if err != nil {
		return err
	}
	front, err := newIssuer(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	sa, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&sa.PublicKey)
	if err != nil {
		return err
	}
	return errors.Join(
		ca.issue("apiserver", "kube-apiserver", "", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local", "localhost"),
		ca.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
		ca.issue("controller-manager", "system:kube-controller-manager", ""),
		ca.issue("scheduler", "system:kube-scheduler", ""),
		ca.issue("steward", "marina:steward", "system:masters", "steward"),
		ca.issue("admin", "admin", "system:masters"),
		front.issue("front-proxy-client", "front-proxy-client", ""),
		writeKey(filepath.Join(dir, "sa.key"), sa),
		writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", public))
}

func newIssuer(dir, name string) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	i := &issuer{dir: dir, key: key, cert: &x509.Certificate{SerialNumber: big.NewInt(1),
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(48 * time.Hour), IsCA: true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}}
	return i, i.write(name, i.cert, key)
}

func (i *issuer) issue(name, user, group string, hosts ...string) error {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		return err
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: user}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if group != "" {
		c.Subject.Organization = []string{group}
	}
	if len(hosts) > 0 {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return i.write(name, c, key)
}

func (i *issuer) write(name string, c *x509.Certificate, key *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, c, i.cert, &key.PublicKey, i.key)
	if err != nil {
		return err
	}
	path := filepath.Join(i.dir, name)
	return errors.Join(writePEM(path+".crt", "CERTIFICATE", der), writeKey(path+".key", key))
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
