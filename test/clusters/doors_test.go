package clusters

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marinaos/marina/test/testbed"
)

// askingTask deploys a task of a service that gets URLs when it is asked, and returns how.
func (x *world) askingTask(t *testing.T, id string) func(url string) (string, error) {
	t.Helper()
	t.Cleanup(func() { x.dc.Remove(t, id) })
	x.dc.Deploy(t, x.ProbeApp(id, 1))
	task := x.dc.App(t, id).Tasks[0].Address()
	client := &http.Client{Timeout: 10 * time.Second}
	return func(u string) (string, error) {
		return fetch(client, "http://"+task+":8080/get?url="+url.QueryEscape(u))
	}
}

func TestPodsFindTheDatacentersServicesByName(t *testing.T) {
	t.Parallel()
	x := enter(t)
	archive, err := x.Image("hello:1", "examples/hello")
	if err != nil {
		t.Fatal(err)
	}
	x.Must(t, "image", "load", archive, "--quiet")
	t.Cleanup(func() { x.dc.Remove(t, "/hello") })
	x.Must(t, "app", "add", x.Example("hello/app.json"))
	x.dc.Settle(t, "/hello", settleLimit)
	vip, _, _ := strings.Cut(x.dc.VIP(t, "/hello"), ":")
	inBoth(t, func(t *testing.T, c *hosted) {
		const name = "hello.marathon.l4lb.thisdcos.directory"
		s := c.space(t)
		s.start(t, prober("pod"))
		if got := strings.TrimSpace(s.ask(t, "pod", "lookup", name)); got != name+" "+vip {
			t.Errorf("lookup: got %q, want %s", got, vip)
		}
		s.gets(t, "pod", "http://"+name+"/", "Hello from hello.instance-")
	})
}

func TestALoadBalancerIsReachedFromTheDatacenterAndFromOutside(t *testing.T) {
	t.Parallel()
	x := enter(t)
	task := x.askingTask(t, "/caller")
	other, err := testbed.NewComputer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	outside := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: other.Dial, DisableKeepAlives: true}}
	machine := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	inBoth(t, func(t *testing.T, c *hosted) {
		s := c.space(t)
		s.service(t, "web", corev1.ServiceTypeLoadBalancer)
		s.start(t, prober("web"))
		vip, name, published := s.balanced(t, "web")
		for from, get := range map[string]func(string) (string, error){
			"a task at " + vip:           func() func(string) (string, error) { return task }(),
			"the machine at " + vip:      func(u string) (string, error) { return fetch(machine, u) },
			"outside at " + published[0]: func(string) (string, error) { return fetch(outside, "http://"+published[0]+"/") },
			"a task at " + name:          func(string) (string, error) { return task("http://" + name + "/") },
		} {
			testbed.Eventually(t, settleLimit, pace, c.name+": the load balancer from "+from, func() error {
				got, err := get("http://" + vip + "/")
				if err == nil && strings.TrimSpace(got) != "web" {
					err = fmt.Errorf("got %q", got)
				}
				return err
			})
		}
		if err := s.kube.CoreV1().Services(s.ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, settleLimit, pace, c.name+": the load balancer to go", func() error {
			v, err := c.look(c.name)
			if err == nil && strings.Contains(fmt.Sprint(v.Balanced), s.ns) {
				err = fmt.Errorf("there are %v", v.Balanced)
			}
			if _, open := fetch(machine, "http://"+vip+"/"); open == nil {
				err = errors.Join(err, fmt.Errorf("%s answers", vip))
			}
			return err
		})
	})
}

// balanced waits until a load balancer has an address and a published port, and Kubernetes and the datacenter agree on
// it.
func (s *space) balanced(t testing.TB, name string) (vip, dns string, published []string) {
	t.Helper()
	testbed.Eventually(t, settleLimit, pace, s.name+": an address for "+name, func() error {
		svc, err := s.kube.CoreV1().Services(s.ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		v, err := s.look(s.name)
		if err != nil {
			return err
		}
		for _, b := range v.Balanced {
			in := svc.Status.LoadBalancer.Ingress
			if b.Namespace == s.ns && b.Name == name && len(in) == 1 && in[0].IP == b.Address && len(b.Published) == 1 && b.DNS != "" {
				vip, dns, published = b.Address, b.DNS, b.Published
				return nil
			}
		}
		return fmt.Errorf("the service has %v, the datacenter says %v", svc.Status.LoadBalancer, v.Balanced)
	})
	return vip, dns, published
}
