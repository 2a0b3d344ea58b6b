package nodenet

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/component-base/logs"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
)

// proxyFlags are kube-proxy's in a node: docs/design/0001. What conntrack allows is the machine's and cannot be changed
// from a user namespace; asking for it would end the process. Health and metrics are told inside the node only.
func proxyFlags(kubeconfig string, n *Node) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--proxy-mode=nftables",
		"--hostname-override=" + n.Name,
		"--bind-address=" + n.Address.String(),
		"--detect-local-mode=ClusterCIDR",
		"--cluster-cidr=" + n.ClusterCIDR.String(),
		"--conntrack-max-per-core=0",
		"--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s",
		"--healthz-bind-address=127.0.0.1:10256",
		"--metrics-bind-address=127.0.0.1:10249",
	}
}

// newProxy prepares upstream's kube-proxy as its own command does.
func newProxy(kubeconfig string, n *Node) (*proxy.Options, error) {
	o := proxy.NewOptions()
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	o.AddFlags(fs)
	if err := fs.Parse(proxyFlags(kubeconfig, n)); err != nil {
		return nil, fmt.Errorf("kube-proxy: %w", err)
	}
	if err := o.Complete(fs); err != nil {
		return nil, fmt.Errorf("kube-proxy: %w", err)
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("kube-proxy: %w", err)
	}
	return o, nil
}

// runProxy runs kube-proxy, which knows no end, once the API has the node. It is left behind when ctx ends: the process
// does too.
func runProxy(ctx context.Context, o *proxy.Options, seen <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-seen:
	}
	logs.InitLogs()
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		if err == nil {
			err = errors.New("ended, though nobody stopped it")
		}
		return fmt.Errorf("kube-proxy: %w", err)
	}
}
