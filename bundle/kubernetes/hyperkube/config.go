package hyperkube

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/marinaos/marina/bundle/kubernetes/hyperkube/steward"
)

// config holds the command line of control-plane.
type config struct {
	dataDir, runDir, pkiDir string
	bind, advertise         string
	port                    int
	services, pods          string // address ranges; pods may be empty: nobody gives nodes theirs
	issuer                  string
	readyFile               string
	stopWithin              time.Duration
	gogc                    int
	memoryLimit             int64 // bytes; 0: none
	audit                   bool
	encryption              string          // file of an EncryptionConfiguration; empty: secrets are kept as they are
	steward                 *steward.Config // nil: nobody is Marina's here

	problem func() string // what people should know of etcd, once it is ready

	apiServerArgs, controllerManagerArgs, schedulerArgs, etcdArgs []string
}

func parse(args []string) (*config, error) {
	c := &config{}
	var stewardFile string
	fs := pflag.NewFlagSet("control-plane", pflag.ContinueOnError)
	fs.StringVar(&c.dataDir, "data-dir", "", "directory of etcd's data: the cluster's whole state (required)")
	fs.StringVar(&c.pkiDir, "pki-dir", "", "directory of certificates and keys, named as kubeadm names them (required)")
	fs.StringVar(&c.runDir, "run-dir", "/run/kubernetes",
		"directory for sockets and kubeconfigs, which end with the process")
	fs.StringVar(&c.bind, "bind-address", "0.0.0.0", "address the API server listens on")
	fs.StringVar(&c.advertise, "advertise-address", "", "address others reach it at; empty: the one of the default route")
	fs.IntVar(&c.port, "secure-port", 6443, "port the API server listens on")
	fs.StringVar(&c.services, "service-cluster-ip-range", "10.96.0.0/16", "address range of Services")
	fs.StringVar(&c.pods, "cluster-cidr", "",
		"address range that nodes get their pod ranges from; empty: nodes bring their own")
	fs.StringVar(&c.issuer, "service-account-issuer", "https://kubernetes.default.svc.cluster.local",
		"issuer of service account tokens")
	fs.StringVar(&c.readyFile, "ready-file", "", "file to make when ready")
	fs.DurationVar(&c.stopWithin, "stop-within", 15*time.Second, "how long stopping may take")
	fs.IntVar(&c.gogc, "gogc", 40,
		"how far the heap may outgrow what is alive, in percent; half of it when there is little to do")
	fs.Int64Var(&c.memoryLimit, "memory-limit", 0, "soft memory limit in bytes; give 90 % of the cgroup's. 0: none")
	fs.StringVar(&stewardFile, "steward-config", "",
		"what Marina's steward does inside the cluster, JSON; empty: there is none")
	fs.BoolVar(&c.audit, "audit", false, "log who did what into the directory audit beside --data-dir, bounded")
	fs.StringVar(&c.encryption, "encryption-config", "",
		"EncryptionConfiguration for what etcd holds; empty: no encryption")
	fs.StringArrayVar(&c.apiServerArgs, "kube-apiserver-arg", nil, "upstream flag, --NAME=VALUE; may be repeated")
	fs.StringArrayVar(&c.controllerManagerArgs, "kube-controller-manager-arg", nil,
		"upstream flag, --NAME=VALUE; may be repeated")
	fs.StringArrayVar(&c.schedulerArgs, "kube-scheduler-arg", nil, "upstream flag, --NAME=VALUE; may be repeated")
	fs.StringArrayVar(&c.etcdArgs, "etcd-arg", nil, "upstream flag, --NAME=VALUE; may be repeated")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("%q: no arguments expected behind the flags", fs.Arg(0))
	case c.dataDir == "" || c.pkiDir == "":
		return nil, errors.New("--data-dir and --pki-dir are needed")
	}
	if stewardFile != "" {
		var err error
		if c.steward, err = steward.ReadConfig(stewardFile); err != nil {
			return nil, fmt.Errorf("--steward-config: %w", err)
		}
	}
	for _, dir := range []*string{&c.dataDir, &c.runDir, &c.pkiDir} { // a socket's address must be absolute
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, err
		}
		*dir = abs
	}
	return c, nil
}

func (c *config) pki(file string) string        { return filepath.Join(c.pkiDir, file) }
func (c *config) etcdSocket() string            { return filepath.Join(c.runDir, "etcd.sock") }
func (c *config) kubeconfig(name string) string { return filepath.Join(c.runDir, name+".kubeconfig") }

// server is the URL by which components of this process reach the API server.
func (c *config) server() string {
	host := c.bind
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(c.port))
}

// prepare makes the directories and kubeconfigs.
func (c *config) prepare() error {
	for _, dir := range []string{c.dataDir, c.runDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{"controller-manager", "scheduler"} {
		if err := os.WriteFile(c.kubeconfig(name), fmt.Appendf(nil, kubeconfig, c.pki("ca.crt"), c.server(), serverName,
			c.pki(name+".crt"), c.pki(name+".key")), 0o600); err != nil {
			return err
		}
	}
	return c.writeFiles()
}

// serverName is in every API server's certificate: Services inside the cluster have it.
const serverName = "kubernetes"

// Certificates are named, not held, so that clients read them again when they were renewed.
const kubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster: {certificate-authority: %q, server: %q, tls-server-name: %q}
users:
- name: component
  user: {client-certificate: %q, client-key: %q}
contexts:
- name: component
  context: {cluster: cluster, user: component}
current-context: component
`
