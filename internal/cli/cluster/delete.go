package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/kubeconfig"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

func remove(e *command.Env) *cobra.Command {
	var p patience
	var yes bool
	del := &cobra.Command{Use: "delete NAME...", Short: "Delete clusters and everything in them", Args: command.Some,
		ValidArgsFunction: kube.CompleteMore(e),
		Long: "Deletes clusters: their nodes, pods, volumes and etcd. Nothing of it can be brought back. It asks for the " +
			"name of each first.\n" +
			"Once begun, a deletion goes on to its end; doing it again is harmless. Contexts of the clusters in the " +
			"kubeconfig go too.",
		RunE: func(c *cobra.Command, args []string) error {
			slices.Sort(args)
			return deleteClusters(c.Context(), e, slices.Compact(args), &p, yes)
		}}
	del.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	p.flags(del, false, "wait until nothing is left of them")
	return del
}

// deleteClusters begins no deletion before every name is known to be a cluster and was confirmed.
func deleteClusters(ctx context.Context, e *command.Env, names []string, p *patience, yes bool) error {
	cl, err := e.Client(ctx)
	if err != nil {
		return err
	}
	views, err := confirmed(ctx, e, cl, names, yes)
	if err != nil {
		return err
	}
	w := &watch{gone: true, timeout: p.timeout}
	for i, k := range views {
		b, err := cl.Call(ctx, http.MethodDelete, kube.Path(k.Name), nil)
		if e, ok := errors.AsType[*exit.Error](err); ok && e.Code == exit.NotFound {
			err, b = nil, nil // somebody was faster
		}
		if e, ok := errors.AsType[*exit.Error](err); ok && i > 0 {
			e.Message += "; being deleted: " + strings.Join(names[:i], ", ")
		}
		if err != nil {
			return err
		}
		if b != nil {
			if err := client.Unmarshal(b, &views[i]); err != nil {
				return err
			}
		}
		forget(e, &k)
		w.targets = append(w.targets, &target{name: k.Name, id: k.ID})
	}
	if p.wait {
		if err := followClusters(ctx, e, cl, w); err != nil {
			return err
		}
	}
	switch {
	case e.JSON && len(views) == 1:
		return e.Document(views[0])
	case e.JSON:
		return e.Document(map[string]any{"clusters": views})
	}
	for _, name := range names {
		switch {
		case e.Quiet:
		case p.wait:
			fmt.Fprintln(e.Out, "deleted "+name)
		default:
			fmt.Fprintln(e.Out, "deleting "+name+" (follow it: marina cluster delete "+name+" --yes --wait)")
		}
	}
	return nil
}

// confirmed returns the clusters of these names, each of which somebody agreed to delete.
func confirmed(ctx context.Context, e *command.Env, cl *client.Client, names []string,
	yes bool) (views []kubernetes.View, err error) {
	for _, name := range names {
		k, _, err := kube.Get(ctx, cl, name, "")
		if e, ok := errors.AsType[*exit.Error](err); ok && len(names) > 1 {
			e.Message += "; nothing was deleted"
		}
		if err != nil {
			return nil, err
		}
		views = append(views, k)
	}
	for i := range views {
		if err := confirmName(e, &views[i], yes); err != nil {
			return nil, err
		}
	}
	return views, nil
}

// forget takes a deleted cluster out of the kubeconfig; that it cannot is no reason to keep the cluster.
func forget(e *command.Env, k *kubernetes.View) {
	if _, err := kubeconfig.Remove(kubeconfig.ContextOf(k.Name), k.Server); err != nil {
		fmt.Fprintln(e.Err, "marina: "+output.Clean(err.Error()))
	}
}

// confirmName has a person type a cluster's name; without a person the answer is no.
func confirmName(e *command.Env, k *kubernetes.View, yes bool) error {
	if yes || k.State == kubernetes.Deleting {
		return nil
	}
	return e.ConfirmName(k.Name, fmt.Sprintf("deleting %s takes everything in it", k.Name),
		fmt.Sprintf("Cluster %s has %s and %s running. Delete it and everything in it?",
			output.Clean(k.Name), output.Plural(count(&k.Definition), "node"), output.Plural(k.Pods.Running, "pod")))
}
