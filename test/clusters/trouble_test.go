package clusters

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marinaos/marina/test/testbed"
)

// works is nil if a cluster takes and gives back an object.
func (c *hosted) works(t testing.TB) error {
	maps := c.kube.CoreV1().ConfigMaps("default")
	m, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "works-"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return maps.Delete(t.Context(), m.Name, metav1.DeleteOptions{})
}

func TestAFullDiskOfOneControlPlaneIsSaidAndConcernsNoOtherAndEndsWithIt(t *testing.T) {
	x := enter(t)
	c := x.third(t, "full", "--nodes", "0")
	x.ready(t, c.name, readyLimit)
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(x.volume(c.name, "control-plane"), "filler")
	if err := fill(filler); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	block := make([]byte, 300<<10) // etcd has some space in advance
	rand.Read(block)
	testbed.Eventually(t, settleLimit, pace, "etcd to meet its disk's end", func() error {
		_, err := c.kube.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "fill-"},
			Data: map[string]string{"block": hex.EncodeToString(block)}}, metav1.CreateOptions{})
		if err != nil {
			return nil
		}
		return errors.New("it still takes objects")
	})
	x.says(t, c.name, "no space left")
	for _, other := range x.both() {
		if err := other.works(t); err != nil {
			t.Errorf("cluster %s: %v", other.name, err)
		}
	}
	testbed.Until(t, settleLimit, "the volume to be there, as it is while the control plane tries to start", func() error { return os.Remove(filler) })
	testbed.Eventually(t, readyLimit, pace, "the cluster to work again", func() error { return c.works(t) })
	x.ready(t, c.name, readyLimit)
}

// fill writes a file until its file system is full.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); ; {
		if _, err = f.Write(block[:size]); errors.Is(err, unix.ENOSPC) && size > 512 {
			size /= 2
		} else if err != nil {
			return errors.Join(err, f.Sync())
		}
	}
}

func TestABrokenEtcdIsSaidAndConcernsNoOther(t *testing.T) {
	x := enter(t)
	c := x.third(t, "torn", "--nodes", "0")
	x.ready(t, c.name, readyLimit)
	name := filepath.Join(x.volume(c.name, "control-plane"), "etcd", "etcd", "member", "snap", "db")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	garbage := make([]byte, 256<<10)
	rand.Read(garbage)
	_, err = f.WriteAt(garbage, 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if pid, err := x.process(c.address(t, "control-plane")); err == nil { // etcd has the file mapped, and may have ended by itself
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
	testbed.Eventually(t, readyLimit, pace, "the cluster to say what is broken", func() error {
		v, err := x.look(c.name)
		if err != nil {
			return err
		}
		m, err := member(v, "control-plane")
		if err == nil && (m.State != "down" || m.Message == "" || v.State != "degraded") {
			err = fmt.Errorf("it is %s, its control plane %s: %s", v.State, m.State, m.Message)
		}
		return err
	})
	x.says(t, c.name, "etcd/member/snap/db", "invalid database")
	for _, other := range x.both() {
		if err := other.works(t); err != nil {
			t.Errorf("cluster %s: %v", other.name, err)
		}
	}
}
