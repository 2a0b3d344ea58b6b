package steward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Why a controller of our own and not sigs.k8s.io/sig-storage-lib-external-provisioner: the library watches all
// classes, claims, volumes and nodes a second time and brings a metrics server and leader election, and half of what is
// here would stand there too, since directories are made on nodes.

const (
	provisioner        = "marina.io/local"
	provisionedLabel   = "marina.io/provisioned"
	volumeFinalizer    = "marina.io/local-volume" // the volume has a directory
	volumesDir         = "/var/lib/marina/volumes/"
	claimProvisioner   = "volume.kubernetes.io/storage-provisioner" // written by the controller-manager
	claimSelectedNode  = "volume.kubernetes.io/selected-node"       // written by the scheduler
	volumeProvisioner  = "pv.kubernetes.io/provisioned-by"
	volumesAtOnce      = 8
	reasonProvisioning = "ProvisioningFailed" // as external provisioners say it
)

// provision is a round of the loop of volumes: it makes volumes for claims whose node is known, and removes those that
// nobody claims any more.
func (s *Steward) provision(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(volumesAtOnce)
	for _, c := range each[corev1.PersistentVolumeClaim](s.seen.claims) {
		if !wantsVolume(c) {
			continue
		}
		g.Go(func() error {
			if err := s.makeVolume(ctx, c); err != nil {
				s.events.Event(c, corev1.EventTypeWarning, reasonProvisioning, limit(err.Error()))
				return fmt.Errorf("claim %s/%s: %w", c.Namespace, c.Name, err)
			}
			return nil
		})
	}
	for _, v := range each[corev1.PersistentVolume](s.seen.volumes) {
		if v.Annotations[volumeProvisioner] != provisioner {
			continue
		}
		g.Go(func() error {
			if err := s.removeVolume(ctx, v); err != nil {
				if v.Status.Phase == corev1.VolumeReleased {
					s.events.Event(v, corev1.EventTypeWarning, "VolumeFailedDelete", limit(err.Error()))
				}
				return fmt.Errorf("volume %s: %w", v.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func wantsVolume(c *corev1.PersistentVolumeClaim) bool {
	return c.DeletionTimestamp == nil && c.Spec.VolumeName == "" && c.Spec.StorageClassName != nil &&
		c.Annotations[claimProvisioner] == provisioner && c.Annotations[claimSelectedNode] != ""
}

// impossible says why a claim waits until somebody changes it or the cluster.
type impossible struct {
	reason     string
	reschedule bool // another node may do
}

func (i *impossible) Error() string { return i.reason }

func (s *Steward) makeVolume(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	node, ok := one[corev1.Node](s.seen.nodes, c.Annotations[claimSelectedNode])
	err := error(&impossible{fmt.Sprintf("node %q does not exist", c.Annotations[claimSelectedNode]), true})
	if ok {
		err = fits(c, node)
	}
	if i := (*impossible)(nil); errors.As(err, &i) {
		s.events.Event(c, corev1.EventTypeWarning, reasonProvisioning, limit(i.reason))
		if i.reschedule { // the scheduler then selects again, with pauses of its own
			patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null},"resourceVersion":%q}}`, claimSelectedNode,
				c.ResourceVersion)
			_, err := s.client.CoreV1().PersistentVolumeClaims(c.Namespace).Patch(ctx, c.Name, types.MergePatchType, patch,
				metav1.PatchOptions{})
			return ignoreGone(err)
		}
		return nil
	}
	class, err := s.client.StorageV1().StorageClasses().Get(ctx, *c.Spec.StorageClassName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	name := "pvc-" + string(c.UID)
	if err := s.tunnel.makeVolume(ctx, node, name); err != nil {
		return fmt.Errorf("directory on node %s: %w", node.Name, err)
	}
	_, err = s.client.CoreV1().PersistentVolumes().Create(ctx, volumeFor(name, c, node, class),
		metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) { // and will be seen
		return nil
	}
	if err == nil {
		s.events.Eventf(c, corev1.EventTypeNormal, "ProvisioningSucceeded", "volume %s made on node %s", name, node.Name)
	}
	return err
}

// fits says what of a claim a directory on a node cannot give.
func fits(c *corev1.PersistentVolumeClaim, n *corev1.Node) error {
	switch {
	case c.Spec.VolumeMode != nil && *c.Spec.VolumeMode != corev1.PersistentVolumeFilesystem:
		return &impossible{reason: "volumeMode Block: local volumes are directories"}
	case c.Spec.DataSource != nil || c.Spec.DataSourceRef != nil:
		return &impossible{reason: "dataSource: local volumes start empty"}
	case c.Spec.Selector != nil:
		return &impossible{reason: "selector: claims with a selector get no new volumes"}
	case slices.ContainsFunc(c.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m != corev1.ReadWriteOnce && m != corev1.ReadWriteOncePod
	}):
		return &impossible{reason: "accessModes: local volumes are of one node: ReadWriteOnce or ReadWriteOncePod"}
	case n.Labels[corev1.LabelHostname] == "":
		return &impossible{fmt.Sprintf("node %s has no label %s", n.Name, corev1.LabelHostname), true}
	}
	want, has := c.Spec.Resources.Requests[corev1.ResourceStorage], n.Status.Allocatable[corev1.ResourceEphemeralStorage]
	if want.Cmp(has) > 0 {
		return &impossible{fmt.Sprintf("%s requested, but node %s has %s in all", want.String(), n.Name, has.String()), true}
	}
	return nil
}

func volumeFor(name string, c *corev1.PersistentVolumeClaim, n *corev1.Node,
	class *storagev1.StorageClass) *corev1.PersistentVolume {
	onNode := corev1.NodeSelectorRequirement{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn,
		Values: []string{n.Labels[corev1.LabelHostname]}}
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{provisionedLabel: "local"},
			Finalizers: []string{volumeFinalizer}, Annotations: map[string]string{volumeProvisioner: provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{
				corev1.ResourceStorage: c.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   c.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              class.Name,
			VolumeMode:                    new(corev1.PersistentVolumeFilesystem),
			ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace,
				Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: volumesDir + name}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{onNode}}}}},
		},
	}
	if class.ReclaimPolicy != nil {
		v.Spec.PersistentVolumeReclaimPolicy = *class.ReclaimPolicy
	}
	return v
}

// removeVolume deletes a released volume, and the directory of one that is being deleted. Of a node that is gone the
// directories are gone too.
func (s *Steward) removeVolume(ctx context.Context, v *corev1.PersistentVolume) error {
	volumes := s.client.CoreV1().PersistentVolumes()
	drop := v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	if v.DeletionTimestamp == nil {
		if drop && v.Status.Phase == corev1.VolumeReleased {
			return ignoreGone(volumes.Delete(ctx, v.Name,
				metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(v.UID))}))
		}
		return nil
	}
	if v.Status.Phase == corev1.VolumeBound || !slices.Contains(v.Finalizers, volumeFinalizer) {
		return nil
	}
	if node := s.nodeOf(v); node != nil && drop {
		if err := s.tunnel.removeVolume(ctx, node, v.Name); err != nil {
			return fmt.Errorf("directory on node %s: %w", node.Name, err)
		}
	}
	own := func(f string) bool { return f == volumeFinalizer }
	rest, err := json.Marshal(slices.DeleteFunc(slices.Clone(v.Finalizers), own))
	if err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"metadata":{"finalizers":%s,"resourceVersion":%q}}`, rest, v.ResourceVersion)
	_, err = volumes.Patch(ctx, v.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return ignoreGone(err)
}

func (s *Steward) nodeOf(v *corev1.PersistentVolume) *corev1.Node {
	for _, n := range each[corev1.Node](s.seen.nodes) {
		if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
			continue
		}
		for _, t := range v.Spec.NodeAffinity.Required.NodeSelectorTerms {
			for _, e := range t.MatchExpressions {
				if e.Key == corev1.LabelHostname && slices.Contains(e.Values, n.Labels[corev1.LabelHostname]) {
					return n
				}
			}
		}
	}
	return nil
}
