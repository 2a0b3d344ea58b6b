package cluster

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

// Command is the noun with its verbs.
func Command(e *command.Env) *cobra.Command {
	return command.Group("cluster", "Hosted Kubernetes clusters", list(e), show(e), create(e), apply(e), scale(e),
		resize(e), remove(e),
		wait(e), events(e), kubeconfigCommand(e), kubectlCommand(e), versions(e))
}

func list(e *command.Env) *cobra.Command {
	var names bool
	c := &cobra.Command{Use: "list", Short: "List the clusters", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			all, b, err := kube.List(c.Context(), cl)
			switch {
			case err != nil:
				return err
			case e.JSON:
				return e.Raw(b)
			case names:
				for _, k := range all {
					fmt.Fprintln(e.Out, output.Clean(k.Name))
				}
				return nil
			case len(all) == 0:
				fmt.Fprintln(e.Out, "No clusters yet. Create one: marina cluster create NAME")
				return nil
			}
			rows := [][]string{}
			for _, k := range all {
				rows = append(rows, []string{k.Name, string(k.State), cmp.Or(k.Release, k.Version), nodesReady(&k),
					strconv.Itoa(k.Pods.Running), output.Ago(k.Created),
					strings.TrimPrefix(k.Server, "https://")})
			}
			e.Fitted([]string{"NAME", "STATE", "VERSION", "NODES", "PODS", "AGE", "API"}, rows, 6)
			for _, k := range all {
				if k.State != kubernetes.Ready && len(k.WaitsFor) > 0 {
					fmt.Fprintf(e.Out, "%s waits for: %s\n", output.Clean(k.Name), output.Clean(k.WaitsFor[0]))
				}
			}
			return nil
		}}
	c.Flags().BoolVar(&names, "names", false, "print only the names, for scripts")
	return c
}

// controlPlane is the name of a cluster's first member.
const controlPlane = "control-plane"

// count returns the number of nodes that a definition asks for.
func count(d *kubernetes.Definition) int {
	if d.Nodes.Count == nil {
		return 1
	}
	return *d.Nodes.Count
}

// nodesReady writes how many nodes are ready of those that are wanted.
func nodesReady(k *kubernetes.View) string {
	n := 0
	for _, m := range k.Members {
		if m.Name != controlPlane && m.State == "ready" {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, count(&k.Definition))
}

func show(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "show NAME", Short: "Show one cluster: its members, what it uses and what it waits for",
		Args:              command.Exactly(1),
		ValidArgsFunction: kube.CompleteOne(e), RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			k, b, err := kube.Get(c.Context(), cl, args[0], "?cost=true")
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			showCluster(e, &k)
			return nil
		}}
}

// showCluster prints a cluster for people.
func showCluster(e *command.Env, k *kubernetes.View) {
	version := k.Version
	if k.Release != "" {
		version += " (" + k.Release + ")"
	}
	created := k.Created.Local().Format(time.DateTime) + " (" + output.Ago(k.Created) + " ago)"
	if !k.ReadyAt.IsZero() {
		created += ", first ready after " + k.ReadyAt.Sub(k.Created).Round(100*time.Millisecond).String()
	}
	pods := fmt.Sprintf("%d running, %d pending, %d failed", k.Pods.Running, k.Pods.Pending, k.Pods.Failed)
	pairs := []string{"cluster", k.Name, "state", string(k.State), "version", version, "group", k.Group, "api", k.Server,
		"from tasks", k.Internal, "nodes", nodesReady(k) + " ready", "pods", pods, "created", created}
	if u := k.Cost; u != nil {
		pairs = append(pairs, "uses", fmt.Sprintf("%s private memory, %s of shared, %.2f cpus", output.MiB(u.Private),
			output.MiB(u.Shared), u.CPU))
	}
	for _, w := range k.WaitsFor {
		pairs = append(pairs, "waits for", w)
	}
	for _, w := range k.Warnings {
		pairs = append(pairs, "warning", w)
	}
	for _, i := range k.Images {
		pairs = append(pairs, "image", i)
	}
	e.Fields(pairs...)
	members(e, k.Members)
	if len(k.Balanced) == 0 {
		return
	}
	fmt.Fprintln(e.Out)
	for _, l := range k.Balanced {
		e.Fields("load balancer", l.Namespace+"/"+l.Name, "  address", l.Address, "  name", l.DNS,
			"  from outside", strings.Join(l.Published, ", "), "  but", l.Message)
	}
}

// members prints the table of a cluster's members, and what those say that are not ready.
func members(e *command.Env, all []kubernetes.Member) {
	if len(all) == 0 {
		return
	}
	rows := [][]string{}
	for _, m := range all {
		cpus, mem := output.Number(m.CPUs), output.MiB(m.Mem)
		if m.Cost != nil {
			cpus = strconv.FormatFloat(m.Cost.CPU, 'f', 2, 64) + "/" + cpus
			mem = output.MiB(m.Cost.Private) + "/" + mem
		}
		rows = append(rows, []string{m.Name, m.State, m.Machine, m.Address, cpus, mem, output.MiB(m.Disk),
			output.Ago(m.Since)})
	}
	fmt.Fprintln(e.Out)
	e.Fitted([]string{"MEMBER", "STATE", "MACHINE", "ADDRESS", "CPUS", "MEM", "DISK", "AGE"}, rows, 2)
	for _, m := range all {
		says := m.Message
		if m.Restarts > 0 {
			says = strings.TrimPrefix(fmt.Sprintf("%s; restarted %d times", says, m.Restarts), "; ")
		}
		if says != "" {
			fmt.Fprintf(e.Out, "%s: %s\n", output.Clean(m.Name), output.Clean(says))
		}
	}
}

func versions(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "versions", Short: "List the versions of Kubernetes that clusters can have",
		Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			all, b, err := kube.Versions(c.Context(), cl)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			if len(all) == 0 {
				fmt.Fprintln(e.Out, "No machine has the programs of any version. Build them: make -C bundle/kubernetes, then "+
					"marina up")
				return nil
			}
			rows := [][]string{}
			for _, k := range all {
				standard := ""
				if k.Default {
					standard = "yes"
				}
				rows = append(rows, []string{k.Minor, k.Release, strconv.Itoa(k.Machines), standard})
			}
			e.Table([]string{"VERSION", "RELEASE", "MACHINES", "DEFAULT"}, rows)
			return nil
		}}
}
