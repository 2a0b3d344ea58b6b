package clusters

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marinaos/marina/test/testbed"
)

// volume is where the machine has what a member keeps.
func (x *world) volume(cluster, member string) string {
	return filepath.Join(x.State, "agent", "volumes", "kubernetes", cluster+"."+member, "data")
}

func TestAClaimedVolumeOutlivesItsPodAndGoesWithItsClaim(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.space(t)
		claims := s.kube.CoreV1().PersistentVolumeClaims(s.ns)
		if _, err := claims.Create(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("64Mi")}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		disk := func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "disk", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "disk", MountPath: "/disk"}}
		}
		s.start(t, prober("first", disk))
		s.ask(t, "first", "write", "/disk/word", "kept")
		node := s.podReady(t, "first").Spec.NodeName
		s.remove(t, "first")
		s.start(t, prober("second", disk))
		if got := s.ask(t, "second", "cat", "/disk/word"); got != "kept" {
			t.Errorf("the second pod reads %q, want kept", got)
		}
		claim, err := claims.Get(t.Context(), "disk", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != "local" {
			t.Errorf("the claim's class is %v, want local", claim.Spec.StorageClassName)
		}
		dir := filepath.Join(c.volume(c.name, node), "lib", "marina", "volumes", claim.Spec.VolumeName)
		if b, err := os.ReadFile(filepath.Join(dir, "word")); string(b) != "kept" {
			t.Errorf("the node's disk has %q, %v", b, err)
		}
		s.remove(t, "second")
		if err := claims.Delete(t.Context(), "disk", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, settleLimit, pace, c.name+": the volume to go", func() error {
			if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is there, %v", dir, err)
			}
			if _, err := s.kube.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("volume %s is there, %v", claim.Spec.VolumeName, err)
			}
			return nil
		})
	})
}

func TestASecretsTextIsNotInEtcdsFiles(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.space(t)
		plain, hidden := "plain-"+rand.Text(), "hidden-"+rand.Text()
		meta := metav1.ObjectMeta{Name: "word"}
		if _, err := s.kube.CoreV1().Secrets(s.ns).Create(t.Context(), &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"word": hidden}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.kube.CoreV1().ConfigMaps(s.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"word": plain}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(c.volume(c.name, "control-plane"), "etcd")
		if !contained(t, at, plain) { // else the search looks in the wrong place
			t.Errorf("a config map's text is not found in %s", at)
		}
		if contained(t, at, hidden) {
			t.Errorf("a secret's text is found in %s", at)
		}
	})
}

// contained reports whether a text is in some file below a directory.
func contained(t testing.TB, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".tmp") {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			found = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
