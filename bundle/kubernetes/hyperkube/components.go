package hyperkube

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// options holds what upstream's commands hold between parsing and running. The commands themselves are of no use
// here: each installs signal handlers of its own, and that can be done once in a process.
type options struct {
	apiServer         *apiserveroptions.ServerRunOptions
	controllerManager *controllermanageroptions.KubeControllerManagerOptions
	scheduler         *scheduleroptions.Options
}

// newOptions parses the flags of all three and applies what is the process's: feature gates and logging.
func newOptions(c *config) (*options, error) {
	cm, err := controllermanageroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	o := &options{apiserveroptions.NewServerRunOptions(), cm, scheduleroptions.NewOptions()}
	if c.steward != nil && !c.steward.Privileged {
		addFloor(o.apiServer) // before its flags, which list plugins
	}
	cmFlags := cm.Flags(controllermanager.KnownControllers(), controllermanager.ControllersDisabledByDefault(),
		controllermanager.ControllerAliases())
	cm.ParsedFlags = &cmFlags
	for _, p := range []struct {
		name           string
		flags          cliflag.NamedFlagSets
		defaults, args []string
	}{
		{"kube-apiserver", o.apiServer.Flags(), c.apiServerDefaults(), c.apiServerArgs},
		{"kube-controller-manager", cmFlags, c.controllerManagerDefaults(), c.controllerManagerArgs},
		{"kube-scheduler", *o.scheduler.Flags, c.schedulerDefaults(), c.schedulerArgs},
	} {
		if err := parseFlags(p.name, p.flags, p.defaults, p.args); err != nil {
			return nil, fmt.Errorf("--%s-arg: %w", p.name, err)
		}
	}
	// One registry stands behind the gates of all three.
	registry := o.apiServer.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return nil, err
	}
	gates := registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)
	if err := logsapi.ValidateAndApply(o.apiServer.Logs, gates); err != nil {
		return nil, err
	}
	gates.(featuregate.MutableFeatureGate).AddMetrics()
	registry.AddMetrics()
	return o, nil
}

// parseFlags sets a component's defaults, less those that args name, and then args.
func parseFlags(component string, named cliflag.NamedFlagSets, defaults, args []string) error {
	fs := pflag.NewFlagSet(component, pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.Usage = func() {}
	for _, s := range named.FlagSets {
		fs.AddFlagSet(s)
	}
	given := map[string]bool{}
	for _, a := range args {
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		given[strings.ReplaceAll(name, "_", "-")] = true
	}
	if given["authorization-config"] { // the two exclude each other
		given["authorization-mode"] = true
	}
	for name := range given { // and so do these
		given["authentication-config"] = given["authentication-config"] || name == "anonymous-auth" ||
			strings.HasPrefix(name, "oidc-")
	}
	defaults = slices.DeleteFunc(defaults, func(d string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(d, "--"), "=")
		return given[name]
	})
	if err := fs.Parse(append(defaults, args...)); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%q: expected --NAME=VALUE", fs.Arg(0))
	}
	if component == "kube-apiserver" {
		return nil
	}
	var err error
	named.FlagSet("logs").VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			err = fmt.Errorf("--%s: logging is the whole process's: give it to kube-apiserver", f.Name)
		}
	})
	return err
}

// apiServerDefaults are upstream's own but for: where things are; privileged containers, which are a matter of
// admission and of what a node allows; node authorization; addresses, by which kubelets are reached, since names of
// nodes need not resolve; an end to watches when it stops, without which those of one kubelet hold it for its full
// minute; and anonymous requests, which are answered on the paths of probes only.
func (c *config) apiServerDefaults() []string {
	args := []string{
		"--bind-address=" + c.bind,
		"--secure-port=" + strconv.Itoa(c.port),
		"--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--etcd-servers=unix://" + c.etcdSocket(),
		"--client-ca-file=" + c.pki("ca.crt"),
		"--tls-cert-file=" + c.pki("apiserver.crt"),
		"--tls-private-key-file=" + c.pki("apiserver.key"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"),
		"--kubelet-client-certificate=" + c.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + c.pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--proxy-client-cert-file=" + c.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + c.pki("front-proxy-client.key"),
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--service-account-issuer=" + c.issuer,
		"--service-account-key-file=" + c.pki("sa.pub"),
		"--service-account-signing-key-file=" + c.pki("sa.key"),
		"--service-cluster-ip-range=" + c.services,
		"--shutdown-watch-termination-grace-period=1s",
	}
	if c.advertise != "" {
		args = append(args, "--advertise-address="+c.advertise)
	}
	return append(args, c.writtenArgs()...)
}

// controllerManagerDefaults: one replica needs no election, nobody else reads its port, and a profile of every wait
// costs a twentieth of what an idle process uses.
func (c *config) controllerManagerDefaults() []string {
	kubeconfig := c.kubeconfig("controller-manager")
	args := []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--contention-profiling=false",
		"--use-service-account-credentials=true",
		"--root-ca-file=" + c.pki("ca.crt"),
		"--service-account-private-key-file=" + c.pki("sa.key"),
		"--service-cluster-ip-range=" + c.services,
	}
	if c.pods != "" {
		args = append(args, "--allocate-node-cidrs=true", "--cluster-cidr="+c.pods)
	}
	if _, err := os.Stat(c.pki("ca.key")); err == nil {
		args = append(args, "--cluster-signing-cert-file="+c.pki("ca.crt"), "--cluster-signing-key-file="+c.pki("ca.key"))
	}
	return args
}

func (c *config) schedulerDefaults() []string {
	kubeconfig := c.kubeconfig("scheduler")
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--contention-profiling=false",
	}
}

func (o *options) runAPIServer(ctx context.Context) error {
	completed, err := o.apiServer.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return utilerrors.NewAggregate(errs)
	}
	return apiserver.Run(ctx, completed)
}

func (o *options) runControllerManager(ctx context.Context) error {
	cfg, err := o.controllerManager.Config(context.Background(), controllermanager.KnownControllers(),
		controllermanager.ControllersDisabledByDefault(), controllermanager.ControllerAliases())
	if err != nil {
		return err
	}
	return controllermanager.Run(ctx, cfg.Complete())
}

func (o *options) runScheduler(ctx context.Context) error {
	cfg, s, err := scheduler.Setup(ctx, o.scheduler)
	if err != nil {
		return err
	}
	return scheduler.Run(ctx, cfg, s)
}
