package steward

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	drainFor    = 30 * time.Second // then pods are deleted, whatever their budgets say
	drainAgain  = time.Second      // between looks at the pods of a node that is drained
	drainsAtOne = 8                // nodes drained at a time
)

// named matches the datacenter's names of nodes. Node objects of other names are somebody else's.
var named = regexp.MustCompile(`^node-[1-9][0-9]*$`)

// removeNodes is a round of the loop of nodes: it drains and deletes the datacenter's Node objects that are not
// desired.
func (s *Steward) removeNodes(ctx context.Context) error {
	desired := s.state.desired().Nodes
	if desired == nil {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(drainsAtOne)
	for _, n := range each[corev1.Node](s.seen.nodes) {
		if slices.Contains(desired, n.Name) || !named.MatchString(n.Name) {
			continue
		}
		g.Go(func() error {
			if err := s.removeNode(ctx, n); err != nil {
				return fmt.Errorf("node %s: %w", n.Name, err)
			}
			s.deps.Log.Info("node removed", "node", n.Name)
			return nil
		})
	}
	return g.Wait()
}

func (s *Steward) removeNode(ctx context.Context, n *corev1.Node) error {
	nodes := s.client.CoreV1().Nodes()
	if !n.Spec.Unschedulable {
		_, err := nodes.Patch(ctx, n.Name, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`),
			metav1.PatchOptions{})
		if err != nil {
			return ignoreGone(err)
		}
	}
	// A kubelet that is away ends no pod: there is nothing to wait for.
	if ready, _ := nodeReady(n); ready {
		s.drain(ctx, n.Name)
	}
	var errs []error
	for _, p := range s.podsOn(n.Name) {
		errs = append(errs, ignoreGone(s.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name,
			metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(p.UID))})))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return ignoreGone(nodes.Delete(ctx, n.Name,
		metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(n.UID))}))
}

// drain evicts the pods of a node until none is left or the time is up. What refuses an eviction is asked again.
func (s *Steward) drain(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, drainFor)
	defer cancel()
	tick := time.NewTicker(drainAgain)
	defer tick.Stop()
	for {
		pods := s.podsOn(node)
		if len(pods) == 0 {
			return
		}
		for _, p := range pods {
			if p.DeletionTimestamp != nil {
				continue
			}
			err := s.client.PolicyV1().Evictions(p.Namespace).Evict(ctx, &policyv1.Eviction{
				ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
				DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))}})
			if ignoreGone(err) != nil && !apierrors.IsTooManyRequests(err) && ctx.Err() == nil {
				s.deps.Log.Info("pod not evicted", "pod", p.Namespace+"/"+p.Name, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// podsOn are the pods that a node has to lose before it goes: all that did not end, but for those of DaemonSets, which
// would come back, and of the kubelet's own files.
func (s *Steward) podsOn(node string) []*corev1.Pod {
	return slices.DeleteFunc(each[corev1.Pod](s.seen.pods), func(p *corev1.Pod) bool {
		_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
		owner := metav1.GetControllerOf(p)
		return p.Spec.NodeName != node || ended(p) || mirror || owner != nil && owner.Kind == "DaemonSet"
	})
}

// ignoreGone takes an object that is gone, or another by the same name, for what was wanted.
func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
