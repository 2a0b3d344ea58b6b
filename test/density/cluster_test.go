package density

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marinaos/marina/internal/kubernetes"
	"github.com/marinaos/marina/test/testbed"
)

const (
	lookEach = 100 * time.Millisecond // while a cluster comes: looking costs what it waits for
	busybox  = "docker.io/marinaos/busybox:1.35.0"
)

// cluster is one of the datacenter's.
type cluster struct {
	name       string
	ready, ran time.Duration   // from the request until it was ready, and until the user's pod ran
	api        *testbed.Client // as its administrator
	members    []*member
}

// member is a cluster's control plane or node, as its task.
type member struct {
	kind   string // "control plane" or "node"
	task   string
	uuid   string // of its group, which is in the names of its cgroups
	cgroup string // as /proc has it, once known
	pid    int    // the first process, once known
}

var instance = regexp.MustCompile(`\.instance-([0-9a-f-]{36})`)

// owns reports whether a process is in a task of the cluster.
func (k *cluster) owns(p *process) bool {
	for _, m := range k.members {
		if strings.Contains(p.cgroup, m.uuid) {
			return true
		}
	}
	return false
}

// logs reports whether a process writes the log of a task of the cluster.
func (k *cluster) logs(p *process) bool {
	line := strings.Join(p.argv, " ")
	for _, m := range k.members {
		if strings.Contains(line, m.task) {
			return true
		}
	}
	return false
}

// find looks for the member's first process.
func (m *member) find() error {
	for pid, p := range processes(func(p *process) bool { return strings.Contains(p.cgroup, m.uuid) }) {
		program := p.part()
		if program == "control plane" || program == "marina-node" {
			m.pid, m.cgroup = pid, p.cgroup
			return nil
		}
	}
	return fmt.Errorf("task %s has no process", m.task)
}

// cpu is the processor time the task used since it started, pods and short-lived processes included.
func (m *member) cpu() (time.Duration, error) {
	if m.cgroup == "" {
		if err := m.find(); err != nil {
			return 0, err
		}
	}
	return cgroupCPU(m.cgroup)
}

func definition(name string) testbed.Definition {
	return testbed.Definition{"name": name,
		"nodes":        testbed.Definition{"count": 1, "cpus": *nodeCPUs, "mem": *nodeMem, "disk": 2048},
		"controlPlane": testbed.Definition{"cpus": *planeCPUs, "mem": *planeMem, "disk": 512}}
}

const clusters = "/kubernetes/v1/clusters"

// create makes a cluster and runs a pod in it as soon as its API server takes one. An error says why it did not come
// up.
func create(c *testbed.Client, name string) (*cluster, error) {
	k := &cluster{name: name}
	begin := time.Now()
	a, err := c.Do("POST", clusters, definition(name))
	if err == nil && a.Status != http.StatusCreated {
		err = fmt.Errorf("%v", a)
	}
	if err != nil {
		return nil, err
	}
	var last error
	asked := false
	err = testbed.Wait(*patience, lookEach, func() error {
		if k.ready == 0 {
			v, err := show(c, name, false)
			if err == nil && v.State == kubernetes.Ready {
				k.ready = time.Since(begin)
			} else if err == nil {
				err = fmt.Errorf("waits for %v", v.WaitsFor)
			}
			last = err
		}
		if k.api == nil {
			if k.api, err = enter(c, name); err != nil {
				last = err
			}
		} else if k.ran == 0 {
			if err := k.run(&asked); err == nil {
				k.ran = time.Since(begin)
			} else {
				last = err
			}
		}
		if k.ready == 0 || k.ran == 0 {
			return cmp.Or(last, errors.New("its API was just found"))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s did not come up within %v: %w", name, *patience, err)
	}
	return k, k.place(c)
}

func show(c *testbed.Client, name string, cost bool) (v kubernetes.View, err error) {
	a, err := c.Do("GET", fmt.Sprintf("%s/%s?cost=%v", clusters, name, cost), nil)
	if err != nil {
		return v, err
	}
	if a.Status != http.StatusOK {
		return v, fmt.Errorf("cluster %s: %v", name, a)
	}
	return v, json.Unmarshal(a.Body, &v)
}

// place learns which tasks are the cluster's.
func (k *cluster) place(c *testbed.Client) error {
	v, err := show(c, k.name, false)
	if err != nil {
		return err
	}
	for _, m := range v.Members {
		found := instance.FindStringSubmatch(m.Task)
		if found == nil {
			return fmt.Errorf("%s of %s: task %q has no instance in its name", m.Name, k.name, m.Task)
		}
		kind := "node"
		if m.Name == "control-plane" {
			kind = "control plane"
		}
		k.members = append(k.members, &member{kind: kind, task: m.Task, uuid: found[1]})
	}
	return nil
}

// enter makes a client of the cluster's API server with the certificate of its kubeconfig.
func enter(c *testbed.Client, name string) (*testbed.Client, error) {
	a, err := c.Do("GET", clusters+"/"+name+"/kubeconfig", nil)
	if err != nil || a.Status != http.StatusOK {
		return nil, fmt.Errorf("kubeconfig of %s: %v, %v", name, a, err)
	}
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     string `yaml:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert string `yaml:"client-certificate-data"`
				Key  string `yaml:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(a.Body, &k); err != nil {
		return nil, err
	}
	if len(k.Clusters) != 1 || len(k.Users) != 1 || k.Clusters[0].Cluster.Server == "" {
		return nil, fmt.Errorf("kubeconfig of %s is incomplete", name)
	}
	var pem [3][]byte
	for i, text := range []string{k.Clusters[0].Cluster.CA, k.Users[0].User.Cert, k.Users[0].User.Key} {
		if pem[i], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(pem[1], pem[2])
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem[0])
	return &testbed.Client{Base: k.Clusters[0].Cluster.Server, HTTPS: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, ForceAttemptHTTP2: true}}}, nil
}

// run asks for the user's pod until it is taken, and is nil once the pod runs.
func (k *cluster) run(asked *bool) error {
	const pods = "/api/v1/namespaces/default/pods"
	if !*asked {
		a, err := k.api.Do("POST", pods, testbed.Definition{"apiVersion": "v1", "kind": "Pod", "metadata": testbed.Definition{"name": "mine"},
			"spec": testbed.Definition{"terminationGracePeriodSeconds": 1, "containers": []any{testbed.Definition{"name": "mine", "image": busybox,
				"command": []string{"sleep", "1000000"}}}}})
		if err != nil {
			return err
		}
		if *asked = a.Status == http.StatusCreated; !*asked {
			return fmt.Errorf("creating a pod: %v", a)
		}
	}
	a, err := k.api.Do("GET", pods+"/mine", nil)
	if err != nil {
		return err
	}
	var pod struct{ Status struct{ Phase string } }
	if err := json.Unmarshal(a.Body, &pod); err != nil {
		return err
	}
	if pod.Status.Phase != "Running" {
		return fmt.Errorf("the pod is %s: %v", pod.Status.Phase, a)
	}
	return nil
}

const (
	reads  = 300 // of the list of namespaces
	writes = 100 // rounds of list, create, delete
)

// latency measures the API server as one client sees it, a request at a time on one connection.
func latency(b *testing.B, k *cluster) {
	b.Helper()
	const maps = "/api/v1/namespaces/default/configmaps"
	timed := func(into *[]time.Duration, method, path string, body any, status int) {
		begin := time.Now()
		a, err := k.api.Do(method, path, body)
		*into = append(*into, time.Since(begin))
		if err != nil || a.Status != status {
			b.Errorf("%s %s: %v, %v", method, path, a, err)
		}
	}
	var get, list, post, gone []time.Duration
	for range reads {
		timed(&get, "GET", "/api/v1/namespaces", nil, 200)
	}
	for n := range writes {
		name := fmt.Sprintf("bench-%d", n)
		timed(&list, "GET", maps+"?limit=10", nil, 200)
		timed(&post, "POST", maps, testbed.Definition{"apiVersion": "v1", "kind": "ConfigMap", "metadata": testbed.Definition{"name": name},
			"data": testbed.Definition{"text": strings.Repeat("x", 1000)}}, 201)
		timed(&gone, "DELETE", maps+"/"+name, nil, 200)
	}
	how := "of one cluster while the others idle; one client, one connection, certificate of its kubeconfig, by the published port"
	row("GET /api/v1/namespaces, "+fmt.Sprint(reads)+" times", tail(get), "", how)
	row("list of ConfigMaps, "+fmt.Sprint(writes)+" times", tail(list), "", how)
	row("ConfigMap of 1 kB created", tail(post), "", how+"; etcd with fsync")
	row("the same deleted", tail(gone), "", how)
}

// remove deletes a cluster and waits until it is gone.
func remove(b *testing.B, c *testbed.Client, name string) time.Duration {
	b.Helper()
	begin := time.Now()
	a, err := c.Do("DELETE", clusters+"/"+name, nil)
	if err == nil && a.Status == http.StatusNotFound { // it was refused
		return 0
	}
	if err != nil || a.Status != http.StatusAccepted {
		b.Errorf("delete %s: %v, %v", name, a, err)
		return 0
	}
	testbed.Until(b, *patience, "deleting "+name, func() error {
		a, err := c.Do("GET", clusters+"/"+name, nil)
		if err == nil && a.Status != http.StatusNotFound {
			err = fmt.Errorf("%v", a)
		}
		return err
	})
	return time.Since(begin)
}

// answers is nil if an address answers with status 200.
func answers(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %.200s", url, resp.StatusCode, bytes.TrimSpace(text))
	}
	return err
}
