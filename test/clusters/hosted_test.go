package clusters

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"

	api "github.com/marinaos/marina/internal/kubernetes"
	"github.com/marinaos/marina/test/testbed"
)

// hosted is one cluster.
type hosted struct {
	*world
	name, minor string
	config      *rest.Config
	kube        kubernetes.Interface
}

// connect gets a kubeconfig as everybody does.
func (c *hosted) connect() error {
	o := c.Run("cluster", "kubeconfig", c.name, "--print")
	if err := failed(o); err != nil {
		return err
	}
	var err error
	if c.config, err = clientcmd.RESTConfigFromKubeConfig([]byte(o.Out)); err != nil {
		return err
	}
	c.config.QPS, c.config.Burst, c.config.Timeout = 100, 200, time.Minute
	c.kube, err = kubernetes.NewForConfig(c.config)
	return err
}

// look reads what the datacenter says of a cluster.
func (x *world) look(name string) (v api.View, err error) {
	a, err := x.dc.Do("GET", "/kubernetes/v1/clusters/"+name, nil)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("cluster %s: %v", name, a)
	}
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(a.Body, &v)
}

// member is what a view says of the control plane or a node.
func member(v api.View, name string) (api.Member, error) {
	i := slices.IndexFunc(v.Members, func(m api.Member) bool { return m.Name == name })
	if i < 0 {
		return api.Member{}, fmt.Errorf("%s has no member %s: %+v", v.Name, name, v.Members)
	}
	return v.Members[i], nil
}

// address is a member's own.
func (c *hosted) address(t testing.TB, name string) string {
	t.Helper()
	v, err := c.look(c.name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := member(v, name)
	if err != nil {
		t.Fatal(err)
	}
	return m.Address
}

// ready waits until a cluster is ready.
func (x *world) ready(t testing.TB, name string, limit time.Duration) {
	t.Helper()
	testbed.Eventually(t, limit, pace, "cluster "+name+" to be ready", func() error {
		v, err := x.look(name)
		if err == nil && v.State != api.Ready {
			err = fmt.Errorf("it is %s and waits for %q; members %+v", v.State, v.WaitsFor, v.Members)
		}
		return err
	})
}

// says waits until a cluster waits for something, or warns, in these words.
func (x *world) says(t testing.TB, name string, words ...string) {
	t.Helper()
	testbed.Eventually(t, settleLimit, pace, "cluster "+name+" to say "+strings.Join(words, ", "), func() error {
		text := x.Run("cluster", "show", name)
		for _, w := range words {
			if !strings.Contains(text.Out, w) {
				return fmt.Errorf("it says %s%s", text.Out, text.Err)
			}
		}
		return nil
	})
}

// space is a namespace of a cluster that one test has.
type space struct {
	*hosted
	ns string
}

// space makes one; it goes when the test ends, and nobody waits for that.
func (c *hosted) space(t testing.TB) *space {
	t.Helper()
	ctx := t.Context()
	ns, err := c.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "proof-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.tell(t, ns.Name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.kube.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	})
	testbed.Eventually(t, settleLimit, pace, "the namespace's account", func() error {
		_, err := c.kube.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return &space{c, ns.Name}
}

// tell logs what happened in a namespace.
func (c *hosted) tell(t testing.TB, ns string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	events, err := c.kube.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Logf("%s: events of %s: %v", c.name, ns, err)
		return
	}
	for _, e := range events.Items {
		t.Logf("%s: %s %s: %s: %s", c.name, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
}

// prober is a pod that serves port 8080, changed as a test wants.
func prober(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64(1)),
		Containers: []corev1.Container{{Name: "prober", Image: proberImage, Args: []string{"serve", "8080"}, ReadinessProbe: &corev1.Probe{
			PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 10,
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}}}},
	}}
	for _, f := range change {
		f(p)
	}
	return p
}

// on puts a pod on a node.
func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node} }
}

// asRoot gives a pod all that a pod can have: the node's network, processes and files, and all capabilities.
func asRoot(p *corev1.Pod) {
	p.Spec.HostNetwork, p.Spec.HostPID, p.Spec.HostIPC = true, true, true
	c := &p.Spec.Containers[0]
	c.Args, c.ReadinessProbe = []string{"wait"}, nil // ports are the node's
	c.SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "node", MountPath: "/node"})
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "node", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
}

// start makes pods and waits until they are ready.
func (s *space) start(t testing.TB, pods ...*corev1.Pod) {
	t.Helper()
	for _, p := range pods {
		if _, err := s.kube.CoreV1().Pods(s.ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatalf("%s: pod %s: %v", s.name, p.Name, err)
		}
	}
	for _, p := range pods {
		s.podReady(t, p.Name)
	}
}

// podReady waits for a pod and returns it.
func (s *space) podReady(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	testbed.Eventually(t, settleLimit, pace, s.name+": pod "+name+" to be ready", func() (err error) {
		if pod, err = s.kube.CoreV1().Pods(s.ns).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("it is %s: %+v %+v", pod.Status.Phase, pod.Status.Conditions, pod.Status.ContainerStatuses)
	})
	return pod
}

// remove removes a pod and waits until it is gone.
func (s *space) remove(t testing.TB, name string) {
	t.Helper()
	if err := s.kube.CoreV1().Pods(s.ns).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	testbed.Eventually(t, settleLimit, pace, s.name+": pod "+name+" to be gone", func() error {
		_, err := s.kube.CoreV1().Pods(s.ns).Get(t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
}

// service makes a Service in front of the pods whose label app is like its name.
func (s *space) service(t testing.TB, name string, kind corev1.ServiceType) *corev1.Service {
	t.Helper()
	svc, err := s.kube.CoreV1().Services(s.ns).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Type: kind, Selector: map[string]string{"app": name},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("%s: service %s: %v", s.name, name, err)
	}
	return svc
}

// try runs prober in a pod by exec.
func (s *space) try(ctx context.Context, pod string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req := s.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.ns).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "prober", Command: append([]string{"/prober"}, args...), Stdout: true, Stderr: true}, scheme.ParameterCodec)
	e, err := remotecommand.NewWebSocketExecutor(s.config, "GET", req.URL().String())
	if err != nil {
		return "", err
	}
	var out, bad bytes.Buffer
	err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &bad})
	if err != nil {
		err = fmt.Errorf("%s: exec in %s of prober %s: %w: %s", s.name, pod, strings.Join(args, " "), err, bad.Bytes())
	}
	return out.String(), err
}

// ask is try that must succeed.
func (s *space) ask(t testing.TB, pod string, args ...string) string {
	t.Helper()
	out, err := s.try(t.Context(), pod, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// gets waits until a pod gets an answer with some text in it.
func (s *space) gets(t testing.TB, pod, url, want string) {
	t.Helper()
	testbed.Eventually(t, settleLimit, pace, s.name+": pod "+pod+" to get "+url, func() error {
		out, err := s.try(t.Context(), pod, "get", url)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("it gets %q, want %q", out, want)
		}
		return err
	})
}

// reach says which of some addresses a pod reaches.
func (s *space) reach(t testing.TB, pod string, addresses ...string) map[string]bool {
	t.Helper()
	open := map[string]bool{}
	for line := range strings.Lines(s.ask(t, pod, append([]string{"dial"}, addresses...)...)) {
		address, how, _ := strings.Cut(strings.TrimSpace(line), " ")
		open[address] = how == "open"
	}
	if len(open) != len(addresses) {
		t.Fatalf("%s: pod %s tried %v of %v", s.name, pod, open, addresses)
	}
	return open
}

// fetch gets a URL from the machine, or from wherever client dials.
func fetch(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, b)
	}
	return string(b), err
}
