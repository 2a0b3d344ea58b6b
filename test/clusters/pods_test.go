package clusters

import (
	"fmt"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marinaos/marina/test/testbed"
)

func TestNodesAreOfTheClustersVersionAndAreWhatTheyWereGranted(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		v, err := c.look(c.name)
		if err != nil {
			t.Fatal(err)
		}
		server, err := c.kube.Discovery().ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		if server.GitVersion != v.Release || !strings.HasPrefix(v.Release, "v"+c.minor+".") {
			t.Errorf("the API server is of %s, the cluster of %s, want a release of %s", server.GitVersion, v.Release, c.minor)
		}
		nodes, err := c.kube.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(nodes.Items) != *v.Nodes.Count {
			t.Errorf("%d nodes, want %d", len(nodes.Items), *v.Nodes.Count)
		}
		for _, n := range nodes.Items {
			if n.Status.NodeInfo.KubeletVersion != v.Release {
				t.Errorf("node %s is of %s, want %s", n.Name, n.Status.NodeInfo.KubeletVersion, v.Release)
			}
			if cpu := n.Status.Allocatable.Cpu().MilliValue(); cpu != int64(v.Nodes.CPUs*1000) {
				t.Errorf("node %s has %dm cpus to give, want %g", n.Name, cpu, v.Nodes.CPUs)
			}
			if mem := n.Status.Capacity.Memory().Value() >> 20; mem != int64(v.Nodes.Mem) {
				t.Errorf("node %s has %d MiB, want %g", n.Name, mem, v.Nodes.Mem)
			}
		}
	})
}

func TestAPodRunsAndAnswersExecAndLogs(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.space(t)
		s.start(t, prober("pod"))
		if out := s.ask(t, "pod", "get", "http://127.0.0.1:8080/"); strings.TrimSpace(out) != "pod" {
			t.Errorf("exec: got %q, want the pod's name", out)
		}
		if out, err := s.try(t.Context(), "pod", "cat", "/nothing"); err == nil || !strings.Contains(err.Error(), "exit code 1") {
			t.Errorf("exec of what fails: got %q, %v, want exit code 1", out, err)
		}
		r, err := s.kube.CoreV1().Pods(s.ns).GetLogs("pod", &corev1.PodLogOptions{}).Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil || string(b) != "pod serves port 8080\n" {
			t.Errorf("logs: got %q, %v", b, err)
		}
	})
}

func TestVolumesOfEveryPlainKindHoldWhatTheyShould(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.space(t)
		meta := metav1.ObjectMeta{Name: "words"}
		if _, err := s.kube.CoreV1().ConfigMaps(s.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"word": "open"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.kube.CoreV1().Secrets(s.ns).Create(t.Context(), &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"word": "hidden"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.start(t, prober("pod", func(p *corev1.Pod) {
			name := corev1.LocalObjectReference{Name: "words"}
			p.Spec.Volumes = []corev1.Volume{
				{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name}}},
				{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "words"}}},
				{Name: "projected", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "somebody"}},
					{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name}}}}}}}
			for _, v := range p.Spec.Volumes {
				p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
			}
		}))
		s.ask(t, "pod", "write", "/empty/word", "mine")
		s.ask(t, "pod", "write", "/memory/word", "fleeting")
		if got, want := s.ask(t, "pod", "cat", "/empty/word", "/memory/word", "/config/word", "/secret/word", "/projected/name", "/projected/word"), "minefleetingopenhiddenpodopen"; got != want {
			t.Errorf("files: got %q, want %q", got, want)
		}
		if token := s.ask(t, "pod", "cat", "/projected/token"); strings.Count(token, ".") != 2 {
			t.Errorf("projected token: got %q", token)
		}
		if _, err := s.try(t.Context(), "pod", "write", "/secret/word", "x"); err == nil {
			t.Error("a secret could be written")
		}
	})
}

func TestMetricsAreAnsweredByPodsBehindTheAPIServer(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		testbed.Eventually(t, settleLimit, pace, c.name+": metrics of all nodes", func() error {
			b, err := c.kube.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/nodes").DoRaw(t.Context())
			if err != nil {
				return err
			}
			v, err := c.look(c.name)
			if err != nil {
				return err
			}
			for n := range *v.Nodes.Count {
				if want := fmt.Sprintf(`"name":"node-%d"`, n+1); !strings.Contains(string(b), want) {
					return fmt.Errorf("got %s, want %s in it", b, want)
				}
			}
			return nil
		})
	})
}
