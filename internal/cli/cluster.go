package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes"
)

const clusters = "/kubernetes/v1/clusters"

func (v *invocation) clusterCommand() *cobra.Command {
	return group("cluster", "Hosted Kubernetes clusters", v.clusterList(), v.clusterShow(), v.clusterCreate(), v.clusterApply(),
		v.clusterScale(), v.clusterResize(), v.clusterDelete(), v.clusterWait(), v.clusterEvents(), v.clusterKubeconfig(),
		v.clusterKubectl(), v.clusterVersions())
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// checkName says what a cluster's name may be before it becomes part of a path.
func checkName(name string) error {
	if !clusterName.MatchString(name) || len(name) > kubernetes.MaxName {
		return usage("", "%q cannot be a cluster's name: at most %d lower-case letters, digits and dashes, with no dash at its ends",
			name, kubernetes.MaxName)
	}
	return nil
}

// clusterPath is the API's path of a cluster, or of something of it.
func clusterPath(name string, of ...string) string {
	return clusters + "/" + url.PathEscape(name) + strings.Join(append([]string{""}, of...), "/")
}

// cluster asks for one cluster.
func (c *client) cluster(ctx context.Context, name, query string) (view kubernetes.View, b []byte, err error) {
	if err := checkName(name); err != nil {
		return view, nil, err
	}
	b, err = c.get(ctx, clusterPath(name)+query, &view)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == ExitNotFound && e.Next == "" {
		e.Next = "marina cluster list"
	}
	return view, b, err
}

func (v *invocation) clusterList() *cobra.Command {
	var names bool
	list := &cobra.Command{Use: "list", Short: "List the clusters", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		var answer struct {
			Clusters []kubernetes.View `json:"clusters"`
		}
		b, err := cl.get(c.Context(), clusters, &answer)
		switch {
		case err != nil:
			return err
		case v.json:
			return v.raw(b)
		case names:
			for _, k := range answer.Clusters {
				fmt.Fprintln(v.out, clean(k.Name))
			}
			return nil
		case len(answer.Clusters) == 0:
			fmt.Fprintln(v.out, "No clusters yet. Create one: marina cluster create NAME")
			return nil
		}
		rows := [][]string{}
		for _, k := range answer.Clusters {
			rows = append(rows, []string{k.Name, string(k.State), or(k.Release, k.Version), nodesReady(&k), strconv.Itoa(k.Pods.Running), ago(k.Created),
				strings.TrimPrefix(k.Server, "https://")})
		}
		v.fitted([]string{"NAME", "STATE", "VERSION", "NODES", "PODS", "AGE", "API"}, rows, 6)
		for _, k := range answer.Clusters {
			if k.State != kubernetes.Ready && len(k.WaitsFor) > 0 {
				fmt.Fprintf(v.out, "%s waits for: %s\n", clean(k.Name), clean(k.WaitsFor[0]))
			}
		}
		return nil
	}}
	list.Flags().BoolVar(&names, "names", false, "print only the names, for scripts")
	return list
}

// controlPlane is the name of a cluster's first member.
const controlPlane = "control-plane"

// count is how many nodes a definition asks for.
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

func (v *invocation) clusterShow() *cobra.Command {
	return &cobra.Command{Use: "show NAME", Short: "Show one cluster: its members, what it uses and what it waits for", Args: exactly(1),
		ValidArgsFunction: v.completeClusters, RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			k, b, err := cl.cluster(c.Context(), args[0], "?cost=true")
			if err != nil {
				return err
			}
			if v.json {
				return v.raw(b)
			}
			v.showCluster(&k)
			return nil
		}}
}

// showCluster prints a cluster for people.
func (v *invocation) showCluster(k *kubernetes.View) {
	version := k.Version
	if k.Release != "" {
		version += " (" + k.Release + ")"
	}
	created := k.Created.Local().Format(time.DateTime) + " (" + ago(k.Created) + " ago)"
	if !k.ReadyAt.IsZero() {
		created += ", first ready after " + k.ReadyAt.Sub(k.Created).Round(100*time.Millisecond).String()
	}
	pods := fmt.Sprintf("%d running, %d pending, %d failed", k.Pods.Running, k.Pods.Pending, k.Pods.Failed)
	pairs := []string{"cluster", k.Name, "state", string(k.State), "version", version, "group", k.Group, "api", k.Server,
		"from tasks", k.Internal, "nodes", nodesReady(k) + " ready", "pods", pods, "created", created}
	if u := k.Cost; u != nil {
		pairs = append(pairs, "uses", fmt.Sprintf("%s private memory, %s of shared, %.2f cpus", mib(u.Private), mib(u.Shared), u.CPU))
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
	v.fields(pairs...)
	v.members(k.Members)
	if len(k.Balanced) == 0 {
		return
	}
	fmt.Fprintln(v.out)
	for _, l := range k.Balanced {
		v.fields("load balancer", l.Namespace+"/"+l.Name, "  address", l.Address, "  name", l.DNS,
			"  from outside", strings.Join(l.Published, ", "), "  but", l.Message)
	}
}

// members prints the table of a cluster's members, and what those say that are not ready.
func (v *invocation) members(all []kubernetes.Member) {
	if len(all) == 0 {
		return
	}
	rows := [][]string{}
	for _, m := range all {
		cpus, mem := num(m.CPUs), mib(m.Mem)
		if m.Cost != nil {
			cpus = strconv.FormatFloat(m.Cost.CPU, 'f', 2, 64) + "/" + cpus
			mem = mib(m.Cost.Private) + "/" + mem
		}
		rows = append(rows, []string{m.Name, m.State, m.Machine, m.Address, cpus, mem, mib(m.Disk), ago(m.Since)})
	}
	fmt.Fprintln(v.out)
	v.fitted([]string{"MEMBER", "STATE", "MACHINE", "ADDRESS", "CPUS", "MEM", "DISK", "AGE"}, rows, 2)
	for _, m := range all {
		says := m.Message
		if m.Restarts > 0 {
			says = strings.TrimPrefix(fmt.Sprintf("%s; restarted %d times", says, m.Restarts), "; ")
		}
		if says != "" {
			fmt.Fprintf(v.out, "%s: %s\n", clean(m.Name), clean(says))
		}
	}
}

func (v *invocation) clusterVersions() *cobra.Command {
	return &cobra.Command{Use: "versions", Short: "List the versions of Kubernetes that clusters can have", Args: exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			all, b, err := cl.versions(c.Context())
			if err != nil {
				return err
			}
			if v.json {
				return v.raw(b)
			}
			if len(all) == 0 {
				fmt.Fprintln(v.out, "No machine has the programs of any version. Build them: make -C bundle/kubernetes, then marina up")
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
			v.table([]string{"VERSION", "RELEASE", "MACHINES", "DEFAULT"}, rows)
			return nil
		}}
}

func (c *client) versions(ctx context.Context) ([]kubernetes.VersionView, []byte, error) {
	var answer struct {
		Versions []kubernetes.VersionView `json:"versions"`
	}
	b, err := c.get(ctx, "/kubernetes/v1/versions", &answer)
	return answer.Versions, b, err
}

func (v *invocation) clusterEvents() *cobra.Command {
	var follow bool
	events := &cobra.Command{Use: "events NAME", Short: "Tell what happened to a cluster", Args: exactly(1), ValidArgsFunction: v.completeClusters,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkName(args[0]); err != nil {
				return err
			}
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			if follow {
				return v.followClusterEvents(c.Context(), cl, args[0])
			}
			all, b, err := cl.clusterEvents(c.Context(), args[0])
			switch {
			case err != nil:
				return err
			case v.json:
				return v.raw(b)
			case len(all) == 0:
				fmt.Fprintln(v.out, "Nothing is remembered; events are kept until the datacenter's daemon restarts.")
			}
			return v.printEvents(all)
		}}
	events.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more happens")
	return events
}

func (c *client) clusterEvents(ctx context.Context, name string) ([]kubernetes.Event, []byte, error) {
	var answer struct {
		Events []kubernetes.Event `json:"events"`
	}
	b, err := c.get(ctx, clusterPath(name, "events"), &answer)
	return answer.Events, b, err
}

// printEvents writes one line for each event; with --json one document a line.
func (v *invocation) printEvents(all []kubernetes.Event) error {
	for _, e := range all {
		if v.json {
			if err := json.NewEncoder(v.out).Encode(e); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(v.out, "%s  %s\n", e.Time.Local().Format(time.DateTime), clean(strings.ReplaceAll(e.Message, "\n", " ")))
	}
	return nil
}

// followClusterEvents prints events as they come, until it is interrupted or the cluster is gone.
func (v *invocation) followClusterEvents(ctx context.Context, cl *client, name string) error {
	var last kubernetes.Event
	for first := true; ; first = false {
		all, _, err := cl.clusterEvents(ctx, name)
		e, _ := errors.AsType[*Error](err)
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C ends following
		case err == nil:
			if all = after(all, last); len(all) > 0 {
				last = all[len(all)-1]
			}
			if err := v.printEvents(all); err != nil {
				return err
			}
		case !first && e != nil && e.Code == ExitNotFound:
			return nil // it is gone, as its last event says
		case first || e == nil || e.Code != ExitUnreachable: // who does not answer now may do so soon
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pace):
		}
	}
}

// after is the events that follow the last one that was printed; a new leader of the datacenter remembers none of the old ones.
func after(all []kubernetes.Event, last kubernetes.Event) []kubernetes.Event {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Time.Equal(last.Time) && all[i].Message == last.Message {
			return all[i+1:]
		}
	}
	return slices.DeleteFunc(all, func(e kubernetes.Event) bool { return e.Time.Before(last.Time) })
}

// mib writes a number of MiB for a table: "1.5Gi", "256Mi".
func mib(n float64) string {
	return strings.TrimSuffix(strings.Replace(kernel.FormatBytes(int64(n*float64(kernel.MiB))), " ", "", 1), "B")
}

// complete asks the datacenter for what a word can be completed to; whatever goes wrong, nothing is proposed.
func (v *invocation) complete(c *cobra.Command, words func(context.Context, *client) []string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
	defer cancel()
	cl, err := v.client(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return words(ctx, cl), cobra.ShellCompDirectiveNoFileComp
}

func clusterNames(ctx context.Context, cl *client) []string {
	var answer struct {
		Clusters []kubernetes.View `json:"clusters"`
	}
	if _, err := cl.get(ctx, clusters, &answer); err != nil {
		return nil
	}
	var out []string
	for _, k := range answer.Clusters {
		out = append(out, k.Name)
	}
	return out
}

// completeClusters completes one cluster's name.
func (v *invocation) completeClusters(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return v.complete(c, clusterNames)
}

// completeMore completes the names of further clusters.
func (v *invocation) completeMore(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return v.complete(c, func(ctx context.Context, cl *client) []string {
		return slices.DeleteFunc(clusterNames(ctx, cl), func(name string) bool { return slices.Contains(args, name) })
	})
}

// completeNames completes the last of names with commas between them.
func (v *invocation) completeNames(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	before := word[:strings.LastIndexByte(word, ',')+1]
	words, directive := v.complete(c, clusterNames)
	for i := range words {
		words[i] = before + words[i]
	}
	return words, directive | cobra.ShellCompDirectiveNoSpace
}

func (v *invocation) completeVersions(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return v.complete(c, func(ctx context.Context, cl *client) []string {
		all, _, err := cl.versions(ctx)
		if err != nil {
			return nil
		}
		var out []string
		for _, k := range all {
			out = append(out, k.Minor)
		}
		return out
	})
}
