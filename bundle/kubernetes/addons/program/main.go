// The program in the add-ons' images: CoreDNS and metrics-server as upstream has them, behind one name each, so that a
// node unpacks, keeps and pages in one file for both.
//
//	coredns [flags]           or a link of that name to the program
//	metrics-server [flags]    likewise
//
// CoreDNS holds the plugins of directives and no others: a cluster's Corefile needs no more, and what is not there has
// no holes.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/logs"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
)

// directives are the plugins in upstream's order (plugin.cfg), which is the order they see a query in. "on" is the
// server's own.
var directives = []string{
	"reload", "bind", "ready", "health", "prometheus", "errors", "log", "loadbalance", "rewrite", "cache", "template", "hosts",
	"kubernetes", "loop", "forward", "on",
}

func main() {
	name := filepath.Base(os.Args[0])
	if _, ok := components[name]; !ok && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	run, ok := components[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "addons: %q is no component; there are coredns and metrics-server\n", name)
		os.Exit(2)
	}
	run()
}

var components = map[string]func(){"coredns": coreDNS, "metrics-server": metricsServer}

func coreDNS() {
	dnsserver.Directives = directives
	coremain.Run()
}

func metricsServer() {
	logs.InitLogs()
	defer logs.FlushLogs()
	if err := app.NewMetricsServerCommand(server.SetupSignalHandler()).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "metrics-server:", err)
		logs.FlushLogs()
		os.Exit(1)
	}
}
