package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/kubernetes"
)

// cores is a flag for processors: "0.5", or "500m" as Kubernetes writes it.
type cores float64

func (c *cores) String() string { return num(float64(*c)) }

// Type names it in the help.
func (c *cores) Type() string { return "cpus" }

// Set reads it.
func (c *cores) Set(s string) error {
	number, milli := strings.CutSuffix(s, "m")
	f, err := strconv.ParseFloat(number, 64)
	if milli {
		f /= 1000
	}
	if err != nil || !(f > 0 && f < 1<<20) {
		return errors.New("write a number of processors: 2, 0.5 or 500m")
	}
	*c = cores(f)
	return nil
}

// mebibytes is a flag for memory and disk: a number of MiB, or "2Gi".
type mebibytes float64

func (m *mebibytes) String() string {
	if *m == 0 {
		return ""
	}
	return mib(float64(*m))
}

// Type names it in the help.
func (m *mebibytes) Type() string { return "size" }

// Set reads it.
func (m *mebibytes) Set(s string) error {
	number, factor := strings.TrimSuffix(s, "B"), 1.0
	for suffix, f := range map[string]float64{"Ki": 1.0 / 1024, "Mi": 1, "Gi": 1024, "Ti": 1 << 20} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, factor = n, f
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if f *= factor; err != nil || !(f > 0 && f < 1<<40) {
		return errors.New("write 2Gi, 512Mi, or a number of MiB")
	}
	*m = mebibytes(math.Ceil(f))
	return nil
}

// sizes is what members are granted, as flags; zero is not said.
type sizes struct {
	cpus, planeCPUs                cores
	mem, disk, planeMem, planeDisk mebibytes
}

func (s *sizes) flags(c *cobra.Command) {
	f := c.Flags()
	f.Var(&s.cpus, "cpus", "processors guaranteed to each node, 0.5 or 500m")
	f.Var(&s.mem, "mem", "memory of each node, 2Gi or a number of MiB")
	f.Var(&s.disk, "disk", "disk of each node for images, logs and volumes")
	f.Var(&s.planeCPUs, "control-plane-cpus", "processors guaranteed to the control plane")
	f.Var(&s.planeMem, "control-plane-mem", "memory guaranteed to the control plane; it may use four times as much")
	f.Var(&s.planeDisk, "control-plane-disk", "disk of the control plane, for etcd")
}

// put writes what was said into a definition and reports whether anything was.
func (s *sizes) put(d *kubernetes.Definition) bool {
	said := false
	set := func(to *float64, value float64) {
		if value != 0 {
			*to, said = value, true
		}
	}
	set(&d.Nodes.CPUs, float64(s.cpus))
	set(&d.Nodes.Mem, float64(s.mem))
	set(&d.Nodes.Disk, float64(s.disk))
	set(&d.ControlPlane.CPUs, float64(s.planeCPUs))
	set(&d.ControlPlane.Mem, float64(s.planeMem))
	set(&d.ControlPlane.Disk, float64(s.planeDisk))
	return said
}

// patience is the flags of a verb that can wait.
type patience struct {
	wait    bool
	timeout time.Duration
}

func (p *patience) flags(c *cobra.Command, wait bool, what string) {
	c.Flags().BoolVar(&p.wait, "wait", wait, what)
	c.Flags().DurationVar(&p.timeout, "timeout", 10*time.Minute, "how long --wait waits")
}

// settle ends a change: it waits for the clusters if that was asked, and says what was done: %s is a cluster's name.
func (v *invocation) settle(ctx context.Context, cl *client, p *patience, done string, views ...kubernetes.View) error {
	w := &watch{timeout: p.timeout}
	for _, k := range views {
		w.targets = append(w.targets, &target{name: k.Name, id: k.ID})
	}
	if p.wait {
		if err := v.followClusters(ctx, cl, w); err != nil {
			return err
		}
		for i, t := range w.targets {
			views[i] = *t.view
		}
	}
	switch {
	case v.json && len(views) == 1:
		return v.document(views[0])
	case v.json:
		return v.document(map[string]any{"clusters": views})
	case v.quiet:
		return nil
	}
	for _, k := range views {
		line := fmt.Sprintf(done, k.Name)
		if p.wait {
			line += ": ready, Kubernetes " + or(k.Release, k.Version) + " at " + or(k.Server, k.Internal)
		} else {
			line += " (follow it: marina cluster wait " + k.Name + ")"
		}
		fmt.Fprintln(v.out, clean(line))
	}
	return nil
}

// document prints a value as the API writes it.
func (v *invocation) document(value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return v.raw(b)
}

func (v *invocation) clusterCreate() *cobra.Command {
	var d kubernetes.Definition
	var s sizes
	var p patience
	var nodes int
	var plain, privileged, leave, merge bool
	create := &cobra.Command{Use: "create NAME", Short: "Create a cluster", Args: exactly(1),
		Long: "Creates a cluster and waits until it is ready: its API answers, its nodes are ready and names resolve in it.\n" +
			"What is not said has a default. Version, group, address ranges, audit, encryption and whether pods may be privileged never change afterwards.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			d.Name, d.Version = args[0], strings.TrimPrefix(d.Version, "v")
			if err := checkName(d.Name); err != nil {
				return err
			}
			if p.wait = p.wait && !leave; merge && !p.wait {
				return usage("", "--kubeconfig needs a cluster that is ready: leave out --no-wait, or run marina cluster kubeconfig %s later", d.Name)
			}
			if c.Flags().Changed("nodes") {
				if err := checkCount(nodes); err != nil {
					return err
				}
				d.Nodes.Count = &nodes
			}
			if plain {
				d.Encryption = new(false)
			}
			if c.Flags().Changed("privileged") {
				d.Privileged = &privileged
			}
			s.put(&d)
			return v.create(c.Context(), &d, &p, merge)
		}}
	f := create.Flags()
	f.StringVar(&d.Version, "version", "", "minor version, 1.37; default: the newest (marina cluster versions)")
	f.IntVar(&nodes, "nodes", 1, "how many nodes; 0 is a control plane alone")
	s.flags(create)
	f.StringVar(&d.Group, "group", "", "whose quota pays, /team; default /")
	f.StringVar(&d.PodCIDR, "pod-cidr", "", "addresses of pods; default 10.244.0.0/16")
	f.StringVar(&d.ServiceCIDR, "service-cidr", "", "addresses of Services; default 10.96.0.0/16")
	f.BoolVar(&d.Audit, "audit", false, "the API server keeps an audit log")
	f.BoolVar(&plain, "no-encryption", false, "secrets are not encrypted in etcd")
	f.BoolVar(&privileged, "privileged", true, "pods may be privileged; default: if nodes have user namespaces, so that it means nothing on their machines")
	p.flags(create, true, "wait until it is ready")
	f.BoolVar(&leave, "no-wait", false, "return at once")
	f.BoolVar(&merge, "kubeconfig", false, "put it into the kubeconfig afterwards")
	_ = create.RegisterFlagCompletionFunc("version", v.completeVersions)
	return create
}

func (v *invocation) create(ctx context.Context, d *kubernetes.Definition, p *patience, merge bool) error {
	cl, err := v.client(ctx)
	if err != nil {
		return err
	}
	b, err := cl.call(ctx, http.MethodPost, clusters, d)
	if err != nil {
		return err
	}
	var k kubernetes.View
	if err := unmarshal(b, &k); err != nil {
		return err
	}
	if err := v.settle(ctx, cl, p, "created %s", k); err != nil {
		return err
	}
	if merge {
		m, err := v.mergeKubeconfig(ctx, cl, d.Name, access{})
		if err == nil && !v.json {
			v.sayMerged(m)
		}
		return err
	}
	if p.wait && !v.json && !v.quiet {
		fmt.Fprintln(v.err, "  try: marina cluster kubeconfig "+d.Name+", then kubectl --context "+contextOf(d.Name)+" get nodes")
	}
	return nil
}

func checkCount(n int) error {
	if n < 0 || n > kubernetes.MaxNodes {
		return usage("", "%d nodes: a cluster has 0 to %d", n, kubernetes.MaxNodes)
	}
	return nil
}

// alter reads a cluster's definition, changes it and writes it back.
func (v *invocation) alter(ctx context.Context, name string, p *patience, done string, change func(*kubernetes.Definition)) error {
	if err := checkName(name); err != nil {
		return err
	}
	cl, err := v.client(ctx)
	if err != nil {
		return err
	}
	k, _, err := cl.cluster(ctx, name, "")
	if err != nil {
		return err
	}
	if k.State == kubernetes.Deleting {
		return &Error{Code: ExitConflict, Message: "cluster " + name + " is being deleted"}
	}
	change(&k.Definition)
	k, _, err = cl.put(ctx, &k.Definition)
	if err != nil {
		return err
	}
	return v.settle(ctx, cl, p, done, k)
}

// put writes a definition and tells whether the cluster is new.
func (c *client) put(ctx context.Context, d *kubernetes.Definition) (k kubernetes.View, created bool, err error) {
	status, b, err := c.send(ctx, http.MethodPut, clusterPath(d.Name), d)
	if err != nil {
		return k, false, err
	}
	return k, status == http.StatusCreated, unmarshal(b, &k)
}

func (v *invocation) clusterScale() *cobra.Command {
	var p patience
	scale := &cobra.Command{Use: "scale NAME COUNT", Short: "Change how many nodes a cluster has", Args: exactly(2),
		Long: "Changes the number of nodes. Nodes that are too many, the newest first, are drained and removed, and the local volumes on\n" +
			"them with them.",
		ValidArgsFunction: v.completeClusters, RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return usage("marina cluster scale "+args[0]+" 3", "%q is not a number of nodes", args[1])
			}
			if err := checkCount(n); err != nil {
				return err
			}
			return v.alter(c.Context(), args[0], &p, "scaled %s to "+plural(n, "node"), func(d *kubernetes.Definition) { d.Nodes.Count = &n })
		}}
	p.flags(scale, false, "wait until the nodes are as wanted")
	return scale
}

func (v *invocation) clusterResize() *cobra.Command {
	var p patience
	var s sizes
	resize := &cobra.Command{Use: "resize NAME", Short: "Change what a cluster's members are granted, while they run", Args: exactly(1),
		Long:              "Changes what each node, or the control plane, is granted; what is not said stays. Pods go on running. Disks keep their size.",
		Example:           "  marina cluster resize demo --cpus 2 --mem 4Gi --wait",
		ValidArgsFunction: v.completeClusters, RunE: func(c *cobra.Command, args []string) error {
			if !s.put(&kubernetes.Definition{}) {
				return usage("marina cluster resize "+args[0]+" --mem 2Gi", "nothing to change: say --cpus, --mem or --disk")
			}
			return v.alter(c.Context(), args[0], &p, "resized %s", func(d *kubernetes.Definition) { s.put(d) })
		}}
	s.flags(resize)
	p.flags(resize, false, "wait until the change is done")
	return resize
}

func (v *invocation) clusterWait() *cobra.Command {
	var timeout time.Duration
	wait := &cobra.Command{Use: "wait NAME...", Short: "Wait until clusters are ready", Args: some, ValidArgsFunction: v.completeMore,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			w := &watch{timeout: timeout}
			for _, name := range args {
				w.targets = append(w.targets, &target{name: name})
			}
			if err := v.followClusters(c.Context(), cl, w); err != nil || !v.json {
				return err
			}
			views := []*kubernetes.View{}
			for _, t := range w.targets {
				views = append(views, t.view)
			}
			if len(views) == 1 {
				return v.document(views[0])
			}
			return v.document(map[string]any{"clusters": views})
		}}
	wait.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this long")
	return wait
}

// some asks for one argument at least.
func some(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(c.CommandPath()+" --help", "expected `%s`, got no arguments", c.UseLine())
	}
	return nil
}

func (v *invocation) clusterDelete() *cobra.Command {
	var p patience
	var yes bool
	del := &cobra.Command{Use: "delete NAME...", Short: "Delete clusters and everything in them", Args: some, ValidArgsFunction: v.completeMore,
		Long: "Deletes clusters: their nodes, pods, volumes and etcd. Nothing of it can be brought back. It asks for the name of each first.\n" +
			"Once begun, a deletion goes on to its end; doing it again is harmless. Contexts of the clusters in the kubeconfig go too.",
		RunE: func(c *cobra.Command, args []string) error {
			slices.Sort(args)
			return v.deleteClusters(c.Context(), slices.Compact(args), &p, yes)
		}}
	del.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	p.flags(del, false, "wait until nothing is left of them")
	return del
}

// deleteClusters begins no deletion before every name is known to be a cluster and was confirmed.
func (v *invocation) deleteClusters(ctx context.Context, names []string, p *patience, yes bool) error {
	cl, err := v.client(ctx)
	if err != nil {
		return err
	}
	var views []kubernetes.View
	for _, name := range names {
		k, _, err := cl.cluster(ctx, name, "")
		if e, ok := errors.AsType[*Error](err); ok && len(names) > 1 {
			e.Message += "; nothing was deleted"
		}
		if err != nil {
			return err
		}
		views = append(views, k)
	}
	for i := range views {
		if err := v.confirmName(&views[i], yes); err != nil {
			return err
		}
	}
	w := &watch{gone: true, timeout: p.timeout}
	for i, k := range views {
		b, err := cl.call(ctx, http.MethodDelete, clusterPath(k.Name), nil)
		if e, ok := errors.AsType[*Error](err); ok && e.Code == ExitNotFound {
			err, b = nil, nil // somebody was faster
		}
		if e, ok := errors.AsType[*Error](err); ok && i > 0 {
			e.Message += "; being deleted: " + strings.Join(names[:i], ", ")
		}
		if err != nil {
			return err
		}
		if b != nil {
			if err := unmarshal(b, &views[i]); err != nil {
				return err
			}
		}
		v.forget(&k)
		w.targets = append(w.targets, &target{name: k.Name, id: k.ID})
	}
	if p.wait {
		if err := v.followClusters(ctx, cl, w); err != nil {
			return err
		}
	}
	switch {
	case v.json && len(views) == 1:
		return v.document(views[0])
	case v.json:
		return v.document(map[string]any{"clusters": views})
	}
	for _, name := range names {
		switch {
		case v.quiet:
		case p.wait:
			fmt.Fprintln(v.out, "deleted "+name)
		default:
			fmt.Fprintln(v.out, "deleting "+name+" (follow it: marina cluster delete "+name+" --yes --wait)")
		}
	}
	return nil
}

// forget takes a deleted cluster out of the kubeconfig; that it cannot is no reason to keep the cluster.
func (v *invocation) forget(k *kubernetes.View) {
	if _, err := removeContext(contextOf(k.Name), k.Server); err != nil {
		fmt.Fprintln(v.err, "marina: "+clean(err.Error()))
	}
}

// confirmName has a person type a cluster's name; without a person the answer is no.
func (v *invocation) confirmName(k *kubernetes.View, yes bool) error {
	if yes || k.State == kubernetes.Deleting {
		return nil
	}
	if _, ok := isTerminal(v.in); !ok {
		return usage("--yes", "deleting %s takes everything in it, and nobody is there to ask", k.Name)
	}
	fmt.Fprintf(v.err, "Cluster %s has %s and %s running. Delete it and everything in it? Type its name: ",
		clean(k.Name), plural(count(&k.Definition), "node"), plural(k.Pods.Running, "pod"))
	return typed(v.in, k.Name)
}

// typed reads a line, which has to be the name.
func typed(in io.Reader, name string) error {
	line, err := bufio.NewReader(in).ReadString('\n')
	if strings.TrimSpace(line) != name || err != nil {
		return &Error{Code: ExitFailed, Message: "that is not " + name + ": nothing was deleted"}
	}
	return nil
}
