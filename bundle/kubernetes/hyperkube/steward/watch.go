package steward

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// stores hold what the steward sees of the cluster, by namespace/name, trimmed to what it reads.
type stores struct {
	nodes, pods, services, dns, claims, volumes cache.Store
}

// kind is one thing to watch.
type kind struct {
	store     *cache.Store
	client    rest.Interface
	resource  string
	namespace string
	object    runtime.Object
	selects   func(*metav1.ListOptions)
	trim      func(any) any
	bells     []bell
}

// watch starts all watches in g and returns how to learn that each has seen everything once.
func (s *Steward) watch(ctx context.Context, g *errgroup.Group) []cache.InformerSynced {
	core, discovery := s.client.CoreV1().RESTClient(), s.client.DiscoveryV1().RESTClient()
	all := func(*metav1.ListOptions) {}
	var synced []cache.InformerSynced
	for _, k := range []kind{
		{&s.seen.nodes, core, "nodes", "", &corev1.Node{}, all, trimNode,
			[]bell{s.statusBell, s.nodesBell, s.volumesBell, s.probeBell}},
		{&s.seen.pods, core, "pods", "", &corev1.Pod{}, all, trimPod, []bell{s.statusBell, s.probeBell}},
		{&s.seen.services, core, "services", "", &corev1.Service{},
			func(o *metav1.ListOptions) { o.FieldSelector = "spec.type=LoadBalancer" }, trimService,
			[]bell{s.statusBell, s.balancersBell}},
		{&s.seen.dns, discovery, "endpointslices", metav1.NamespaceSystem, &discoveryv1.EndpointSlice{},
			func(o *metav1.ListOptions) { o.LabelSelector = discoveryv1.LabelServiceName + "=kube-dns" }, trimSlice,
			[]bell{s.statusBell}},
		{&s.seen.claims, core, "persistentvolumeclaims", "", &corev1.PersistentVolumeClaim{}, all, trimClaim,
			[]bell{s.volumesBell}},
		{&s.seen.volumes, core, "persistentvolumes", "", &corev1.PersistentVolume{},
			func(o *metav1.ListOptions) { o.LabelSelector = provisionedLabel + "=local" }, trimVolume, []bell{s.volumesBell}},
	} {
		ring := func() {
			for _, b := range k.bells {
				b.ring()
			}
		}
		store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: cache.NewFilteredListWatchFromClient(k.client, k.resource, k.namespace, k.selects),
			ObjectType:    k.object,
			ResyncPeriod:  0 * time.Second,
			Transform:     func(o any) (any, error) { return k.trim(o), nil },
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc:    func(any) { ring() },
				UpdateFunc: func(any, any) { ring() },
				DeleteFunc: func(any) { ring() },
			},
		})
		*k.store = store
		synced = append(synced, controller.HasSynced)
		g.Go(func() error { controller.RunWithContext(ctx); return nil })
	}
	return synced
}

// each returns what a store holds, in no order.
func each[T any](s cache.Store) []*T {
	list := s.List()
	out := make([]*T, 0, len(list))
	for _, o := range list {
		out = append(out, o.(*T))
	}
	return out
}

func one[T any](s cache.Store, key string) (*T, bool) {
	o, ok, err := s.GetByKey(key)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*T), true
}

func trimNode(o any) any {
	n, ok := o.(*corev1.Node)
	if !ok { // the mark of a deletion that the watch missed
		return o
	}
	n.ManagedFields, n.Annotations, n.Status.Images = nil, nil, nil
	n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil
	n.Status.Capacity = corev1.ResourceList{corev1.ResourceMemory: *n.Status.Capacity.Memory()}
	return n
}

// trimPod keeps where a pod is, how far it got and why not further.
func trimPod(o any) any {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o
	}
	t := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID,
		ResourceVersion: p.ResourceVersion, DeletionTimestamp: p.DeletionTimestamp}}
	if owner := metav1.GetControllerOf(p); owner != nil {
		t.OwnerReferences = []metav1.OwnerReference{{Kind: owner.Kind, Controller: new(true)}}
	}
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		t.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: ""}
	}
	t.Spec.NodeName, t.Status.Phase = p.Spec.NodeName, p.Status.Phase
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			t.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status, Reason: c.Reason,
				Message: limit(c.Message)}}
		}
	}
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil && w.Message != "" {
			t.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: c.Name,
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: w.Reason, Message: limit(w.Message)}}}}
			break
		}
	}
	return t
}

func trimService(o any) any {
	if s, ok := o.(*corev1.Service); ok {
		s.ManagedFields, s.Labels = nil, nil
		if v, has := s.Annotations[publishedAnnotation]; has {
			s.Annotations = map[string]string{publishedAnnotation: v}
		} else {
			s.Annotations = nil
		}
	}
	return o
}

func trimSlice(o any) any {
	if s, ok := o.(*discoveryv1.EndpointSlice); ok {
		s.ManagedFields, s.Annotations = nil, nil
	}
	return o
}

func trimClaim(o any) any {
	if c, ok := o.(*corev1.PersistentVolumeClaim); ok {
		c.ManagedFields, c.Labels = nil, nil
		delete(c.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return o
}

func trimVolume(o any) any {
	if v, ok := o.(*corev1.PersistentVolume); ok {
		v.ManagedFields = nil
	}
	return o
}
