package clusters

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/marinaos/marina/test/testbed"
)

// process finds the first process of a member: of the programs of clusters, number 1 in its container, at the member's
// address.
func (x *world) process(address string) (int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		cmd, _ := os.ReadFile(dir + "/cmdline")
		if !strings.HasPrefix(string(cmd), "/opt/marina/kubernetes/") {
			continue
		}
		status, _ := os.ReadFile(dir + "/status")
		_, rest, _ := strings.Cut(string(status), "\nNSpid:")
		ids, _, _ := strings.Cut(rest, "\n")
		routes, _ := os.ReadFile(dir + "/net/fib_trie")
		if f := strings.Fields(ids); len(f) < 2 || f[len(f)-1] != "1" || !strings.Contains(string(routes), "|-- "+address+"\n") {
			continue
		}
		group, _ := os.ReadFile(dir + "/cgroup")
		if strings.Contains(string(group), "/marina-"+x.ID) {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("no process of a member at %s", address)
}

// kill kills a member's first process.
func (x *world) kill(t testing.TB, address string) {
	t.Helper()
	pid, err := x.process(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testbed.Until(t, settleLimit, "the killed process to end", func() error {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("process %d is there: %v", pid, err)
		}
		return nil
	})
}

func gone(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("%s is there", path))
	}
	return nil
}

func TestAKilledControlPlaneComesBackAndNeitherPodsNorInformersNotice(t *testing.T) {
	x := enter(t)
	c := x.two
	s := c.space(t)
	s.start(t, prober("pod"))
	was := s.podReady(t, "pod")
	seen := make(chan string, 100)
	factory := informers.NewSharedInformerFactoryWithOptions(c.kube, 0, informers.WithNamespace(s.ns))
	maps := factory.Core().V1().ConfigMaps().Informer()
	if _, err := maps.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(o any) { seen <- o.(*corev1.ConfigMap).Name }}); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	if !cache.WaitForCacheSync(t.Context().Done(), maps.HasSynced) {
		t.Fatal("the informer does not begin")
	}
	before := c.address(t, "control-plane")
	x.kill(t, before)
	testbed.Eventually(t, settleLimit, pace, "an object to be made", func() error {
		_, err := c.kube.CoreV1().ConfigMaps(s.ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "later"}}, metav1.CreateOptions{})
		return err
	})
	testbed.Eventually(t, settleLimit, pace, "the informer to see an object made after the kill", func() error {
		for {
			select {
			case name := <-seen:
				if name == "later" {
					return nil
				}
			default:
				return errors.New("not yet")
			}
		}
	})
	x.ready(t, c.name, readyLimit)
	s.same(t, was)
	if now := c.address(t, "control-plane"); now != before {
		t.Errorf("the control plane was at %s and is at %s", before, now)
	}
}

func TestAKilledNodeComesBackWithItsPods(t *testing.T) {
	x := enter(t)
	c := x.two
	s := c.space(t)
	s.start(t, prober("pod"))
	was := s.podReady(t, "pod")
	x.kill(t, c.address(t, "node-1"))
	testbed.Eventually(t, readyLimit, pace, "the pod to run again", func() error {
		now, err := s.kube.CoreV1().Pods(s.ns).Get(t.Context(), "pod", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.UID != was.UID || len(now.Status.ContainerStatuses) == 0 || now.Status.ContainerStatuses[0].RestartCount == 0 || !now.Status.ContainerStatuses[0].Ready {
			return fmt.Errorf("it is %s, was %s: %+v", now.UID, was.UID, now.Status.ContainerStatuses)
		}
		return nil
	})
	x.ready(t, c.name, readyLimit)
	s.gets(t, "pod", "http://127.0.0.1:8080/", "pod")
}

// killDaemon kills the daemon and starts it again.
func (x *world) killDaemon(t testing.TB) {
	t.Helper()
	pid, err := x.PID("daemon")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, err := x.Up(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// third makes one more cluster, which a test may break. It is deleted when the test ends.
func (x *world) third(t testing.TB, name string, flags ...string) *hosted {
	t.Helper()
	c := &hosted{world: x, name: name, minor: x.one.minor}
	if err := failed(x.create(name, append([]string{"--version", c.minor}, flags...)...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(x.Run("cluster", "show", name).Out, x.Run("cluster", "events", name).Out)
		}
		if _, err := x.look(name); err == nil {
			x.Must(t, "cluster", "delete", name, "--yes", "--wait")
		}
	})
	return c
}

func TestADaemonKilledInTheMiddleOfCreateScaleAndDeleteGoesOn(t *testing.T) {
	x := enter(t)
	s := x.one.space(t)
	s.start(t, prober("pod"))
	was := s.podReady(t, "pod")

	c := x.third(t, "life")
	testbed.Until(t, settleLimit, "the control plane to be placed", func() error {
		v, err := x.look(c.name)
		if err == nil {
			_, err = member(v, "control-plane")
		}
		return err
	})
	x.killDaemon(t)
	x.ready(t, c.name, readyLimit)
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}

	x.Must(t, "cluster", "scale", c.name, "2")
	x.killDaemon(t)
	x.ready(t, c.name, readyLimit)
	nodes, err := c.kube.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 2 {
		t.Errorf("after scaling to 2: %d nodes, %v", len(nodes.Items), err)
	}
	x.Must(t, "cluster", "scale", c.name, "1")
	x.killDaemon(t)
	x.ready(t, c.name, readyLimit)

	x.Must(t, "cluster", "delete", c.name, "--yes")
	x.killDaemon(t)
	testbed.Eventually(t, settleLimit, pace, "the cluster to be gone", func() error {
		if v, err := x.look(c.name); err == nil {
			return fmt.Errorf("it is %s: %+v", v.State, v.Members)
		}
		return errors.Join(gone(x.volume(c.name, "control-plane")), gone(x.volume(c.name, "node-1")), gone(x.volume(c.name, "node-2")))
	})
	s.same(t, was)
}
