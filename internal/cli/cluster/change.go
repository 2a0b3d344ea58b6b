package cluster

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/kubeconfig"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

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
func settle(ctx context.Context, e *command.Env, cl *client.Client, p *patience, done string,
	views ...kubernetes.View) error {
	w := &watch{timeout: p.timeout}
	for _, k := range views {
		w.targets = append(w.targets, &target{name: k.Name, id: k.ID})
	}
	if p.wait {
		if err := followClusters(ctx, e, cl, w); err != nil {
			return err
		}
		for i, t := range w.targets {
			views[i] = *t.view
		}
	}
	switch {
	case e.JSON && len(views) == 1:
		return e.Document(views[0])
	case e.JSON:
		return e.Document(map[string]any{"clusters": views})
	case e.Quiet:
		return nil
	}
	for _, k := range views {
		line := fmt.Sprintf(done, k.Name)
		if p.wait {
			line += ": ready, Kubernetes " + cmp.Or(k.Release, k.Version) + " at " + cmp.Or(k.Server, k.Internal)
		} else {
			line += " (follow it: marina cluster wait " + k.Name + ")"
		}
		fmt.Fprintln(e.Out, output.Clean(line))
	}
	return nil
}

func create(e *command.Env) *cobra.Command {
	var d kubernetes.Definition
	var s sizes
	var p patience
	var nodes int
	var plain, privileged, leave, merge bool
	c := &cobra.Command{Use: "create NAME", Short: "Create a cluster", Args: command.Exactly(1),
		Long: "Creates a cluster and waits until it is ready: its API answers, its nodes are ready and names resolve in " +
			"it.\n" +
			"What is not said has a default. Version, group, address ranges, audit, encryption and whether pods may be " +
			"privileged never change afterwards.",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			d.Name, d.Version = args[0], strings.TrimPrefix(d.Version, "v")
			if err := kube.CheckName(d.Name); err != nil {
				return err
			}
			if p.wait = p.wait && !leave; merge && !p.wait {
				return exit.Usage("", "--kubeconfig needs a cluster that is ready: leave out --no-wait, or run marina cluster "+
					"kubeconfig %s later", d.Name)
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
			return createCluster(c.Context(), e, &d, &p, merge)
		}}
	f := c.Flags()
	f.StringVar(&d.Version, "version", "", "minor version, 1.37; default: the newest (marina cluster versions)")
	f.IntVar(&nodes, "nodes", 1, "how many nodes; 0 is a control plane alone")
	s.flags(c)
	f.StringVar(&d.Group, "group", "", "whose quota pays, /team; default /")
	f.StringVar(&d.PodCIDR, "pod-cidr", "", "addresses of pods; default 10.244.0.0/16")
	f.StringVar(&d.ServiceCIDR, "service-cidr", "", "addresses of Services; default 10.96.0.0/16")
	f.BoolVar(&d.Audit, "audit", false, "the API server keeps an audit log")
	f.BoolVar(&plain, "no-encryption", false, "secrets are not encrypted in etcd")
	f.BoolVar(&privileged, "privileged", true, "pods may be privileged; default: if nodes have user namespaces, so "+
		"that it means nothing on their machines")
	p.flags(c, true, "wait until it is ready")
	f.BoolVar(&leave, "no-wait", false, "return at once")
	f.BoolVar(&merge, "kubeconfig", false, "put it into the kubeconfig afterwards")
	_ = c.RegisterFlagCompletionFunc("version", kube.CompleteVersions(e))
	return c
}

// createCluster asks for a cluster and follows it to its end.
func createCluster(ctx context.Context, e *command.Env, d *kubernetes.Definition, p *patience, merge bool) error {
	cl, err := e.Client(ctx)
	if err != nil {
		return err
	}
	k, err := kube.Create(ctx, cl, d)
	if err != nil {
		return err
	}
	if err := settle(ctx, e, cl, p, "created %s", k); err != nil {
		return err
	}
	if merge {
		m, err := mergeKubeconfig(ctx, e, cl, d.Name, access{})
		if err == nil && !e.JSON {
			sayMerged(e, m)
		}
		return err
	}
	if p.wait && !e.JSON && !e.Quiet {
		fmt.Fprintln(e.Err, "  try: marina cluster kubeconfig "+d.Name+", then kubectl --context "+
			kubeconfig.ContextOf(d.Name)+" get nodes")
	}
	return nil
}

func checkCount(n int) error {
	if n < 0 || n > kubernetes.MaxNodes {
		return exit.Usage("", "%d nodes: a cluster has 0 to %d", n, kubernetes.MaxNodes)
	}
	return nil
}

// alter reads a cluster's definition, changes it and writes it back.
func alter(ctx context.Context, e *command.Env, name string, p *patience, done string,
	change func(*kubernetes.Definition)) error {
	if err := kube.CheckName(name); err != nil {
		return err
	}
	cl, err := e.Client(ctx)
	if err != nil {
		return err
	}
	k, _, err := kube.Get(ctx, cl, name, "")
	if err != nil {
		return err
	}
	if k.State == kubernetes.Deleting {
		return &exit.Error{Code: exit.Conflict, Message: "cluster " + name + " is being deleted"}
	}
	change(&k.Definition)
	k, _, err = kube.Put(ctx, cl, &k.Definition)
	if err != nil {
		return err
	}
	return settle(ctx, e, cl, p, done, k)
}

func scale(e *command.Env) *cobra.Command {
	var p patience
	c := &cobra.Command{Use: "scale NAME COUNT", Short: "Change how many nodes a cluster has", Args: command.Exactly(2),
		Long: "Changes the number of nodes. Nodes that are too many, the newest first, are drained and removed, and the " +
			"local volumes on\n" +
			"them with them.",
		ValidArgsFunction: kube.CompleteOne(e), RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return exit.Usage("marina cluster scale "+args[0]+" 3", "%q is not a number of nodes", args[1])
			}
			if err := checkCount(n); err != nil {
				return err
			}
			return alter(c.Context(), e, args[0], &p, "scaled %s to "+output.Plural(n, "node"),
				func(d *kubernetes.Definition) { d.Nodes.Count = &n })
		}}
	p.flags(c, false, "wait until the nodes are as wanted")
	return c
}

func resize(e *command.Env) *cobra.Command {
	var p patience
	var s sizes
	c := &cobra.Command{Use: "resize NAME", Short: "Change what a cluster's members are granted, while they run",
		Args: command.Exactly(1),
		Long: "Changes what each node, or the control plane, is granted; what is not said stays. Pods go on " +
			"running. Disks keep their size.",
		Example:           "  marina cluster resize demo --cpus 2 --mem 4Gi --wait",
		ValidArgsFunction: kube.CompleteOne(e), RunE: func(c *cobra.Command, args []string) error {
			if !s.put(&kubernetes.Definition{}) {
				return exit.Usage("marina cluster resize "+args[0]+" --mem 2Gi", "nothing to change: say --cpus or --mem")
			}
			return alter(c.Context(), e, args[0], &p, "resized %s", func(d *kubernetes.Definition) { s.put(d) })
		}}
	s.flags(c)
	p.flags(c, false, "wait until the change is done")
	return c
}

func wait(e *command.Env) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{Use: "wait NAME...", Short: "Wait until clusters are ready", Args: command.Some,
		ValidArgsFunction: kube.CompleteMore(e),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			w := &watch{timeout: timeout}
			for _, name := range args {
				w.targets = append(w.targets, &target{name: name})
			}
			if err := followClusters(c.Context(), e, cl, w); err != nil || !e.JSON {
				return err
			}
			views := []*kubernetes.View{}
			for _, t := range w.targets {
				views = append(views, t.view)
			}
			if len(views) == 1 {
				return e.Document(views[0])
			}
			return e.Document(map[string]any{"clusters": views})
		}}
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this long")
	return c
}
