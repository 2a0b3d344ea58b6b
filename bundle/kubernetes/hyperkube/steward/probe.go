package steward

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const probeName = "marina-probe"

// probe is a round of the loop of the probe: it makes a pod, sees it run, remembers that and takes the pod away.
func (s *Steward) probe(ctx context.Context) error {
	pods := s.client.CoreV1().Pods(metav1.NamespaceSystem)
	pod, there := one[corev1.Pod](s.seen.pods, metav1.NamespaceSystem+"/"+probeName)
	if s.state.probed() {
		if there && pod.DeletionTimestamp == nil {
			return ignoreGone(pods.Delete(ctx, probeName, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
		}
		return nil
	}
	message := ""
	switch {
	case s.cfg.Addons == "":
		message = "there are no add-ons to take an image from"
	case !there && !s.anyNodeReady():
		message = "no node is ready"
	case !there:
		image, err := imageRef(s.cfg.Addons, "pause")
		if err != nil {
			return err
		}
		_, err = pods.Create(ctx, probePod(image), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			s.sayProbe(limit(err.Error()))
			return fmt.Errorf("pod %s: %w", probeName, err)
		}
		message = "the pod was made"
	case pod.Status.Phase == corev1.PodRunning || pod.Status.Phase == corev1.PodSucceeded:
		if err := s.state.setProbed(); err != nil {
			return err
		}
		s.probeBell.ring()
	case pod.Status.Phase == corev1.PodFailed && pod.DeletionTimestamp == nil:
		message = "the pod failed and is made again"
		err := pods.Delete(ctx, probeName, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
		if err := ignoreGone(err); err != nil {
			return err
		}
	default:
		if message = waitsFor(pod); message == "" {
			message = "the pod is starting"
		}
	}
	s.sayProbe(message)
	return nil
}

func (s *Steward) sayProbe(message string) {
	s.board.setProbe(message)
	s.statusBell.ring()
}

func (s *Steward) anyNodeReady() bool {
	for _, n := range each[corev1.Node](s.seen.nodes) {
		if ready, _ := nodeReady(n); ready {
			return true
		}
	}
	return false
}

// probePod asks for as little as a pod can, and passes every level of Pod Security.
func probePod(image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: probeName, Namespace: metav1.NamespaceSystem},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			TerminationGracePeriodSeconds: new(int64(0)),
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(65532)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "pause", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi")}},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}
