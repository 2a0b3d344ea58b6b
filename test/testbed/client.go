package testbed

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Marathon is the path of Marathon's API.
const Marathon = "/service/marathon/v2"

// requestLimit bounds one request of a Client.
const requestLimit = 30 * time.Second

// Client speaks HTTP to a datacenter. Its answers are never errors: stories judge statuses themselves.
type Client struct {
	Base  string // "https://127.0.0.1:32100"
	Auth  string // the Authorization header, empty for none
	HTTPS *http.Client
}

// Client returns one for the gateway's HTTPS port, with a token that root on the machine gets.
func (h *Datacenter) Client() (*Client, error) {
	token := h.Run("token", "create", "--quiet")
	if err := token.err(); err != nil {
		return nil, err
	}
	ca := h.Run("token", "ca")
	if err := ca.err(); err != nil {
		return nil, err
	}
	return NewClient("https://"+h.HTTPS, "token="+strings.TrimSpace(token.Out), []byte(ca.Out), nil)
}

// NewClient returns a client that trusts ca only, and dials by dial if there is one.
func NewClient(base, auth string, ca []byte, dial func(context.Context, string, string) (net.Conn, error)) (
	*Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("the CA certificate is not PEM: %.100s", ca)
	}
	return &Client{Base: base, Auth: auth, HTTPS: &http.Client{Timeout: requestLimit, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DialContext: dial, MaxConnsPerHost: 64}}}, nil
}

// Answer is the status, header and body that a request got.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// String is the status and the beginning of the body.
func (a Answer) String() string { return fmt.Sprintf("%d %.2000s", a.Status, a.Body) }

// Do sends a request. A body that is neither nil, text nor bytes goes as JSON.
func (c *Client) Do(method, path string, body any) (Answer, error) {
	var in []byte
	switch b := body.(type) {
	case nil:
	case string:
		in = []byte(b)
	case []byte:
		in = b
	default:
		var err error
		if in, err = json.Marshal(b); err != nil {
			return Answer{}, err
		}
	}
	req, err := http.NewRequest(method, c.Base+path, bytes.NewReader(in))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.Auth != "" {
		req.Header.Set("Authorization", c.Auth)
	}
	resp, err := c.HTTPS.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, out}, err
}

// Ask sends a request that must get the status, and decodes the answer into out if that is not nil.
func (c *Client) Ask(t testing.TB, method, path string, body any, status int, out any) Answer {
	t.Helper()
	a, err := c.Do(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.Status != status {
		t.Fatalf("%s %s: got %v, want status %d", method, path, a, status)
	}
	if out != nil {
		if err := json.Unmarshal(a.Body, out); err != nil {
			t.Fatalf("%s %s: %v: %v", method, path, err, a)
		}
	}
	return a
}

// App is the part of an app that stories read.
type App struct {
	ID             string
	Instances      int
	Version        string
	Env            map[string]string
	TasksRunning   int
	TasksHealthy   int
	TasksUnhealthy int
	TasksStaged    int
	Deployments    []struct{ ID string }
	Tasks          []Task
	LastFailure    *struct{ TaskID, State, Message string } `json:"lastTaskFailure"`
	Checks         []json.RawMessage                        `json:"healthChecks"`
	Container      *struct {
		PortMappings []struct{ ServicePort int }
	}
}

// Task is the part of a task that stories read.
type Task struct {
	ID          string
	AppID       string `json:"appId"`
	State       string
	Host        string
	Version     string
	Ports       []int
	IPAddresses []struct {
		IPAddress string `json:"ipAddress"`
	} `json:"ipAddresses"`
	Health []struct{ Alive bool } `json:"healthCheckResults"`
}

// Address is the task's own.
func (t *Task) Address() string {
	if len(t.IPAddresses) == 0 {
		return ""
	}
	return t.IPAddresses[0].IPAddress
}

// Show reads an app.
func (c *Client) Show(id string) (App, error) {
	a, err := c.Do("GET", Marathon+"/apps"+id, nil)
	if err != nil {
		return App{}, err
	}
	if a.Status != http.StatusOK {
		return App{}, fmt.Errorf("app %s: %v", id, a)
	}
	var out struct{ App App }
	return out.App, json.Unmarshal(a.Body, &out)
}

// App reads an app that must be there.
func (c *Client) App(t testing.TB, id string) App {
	t.Helper()
	a, err := c.Show(id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Settled is nil once an app has no deployment and as many running tasks as it should, healthy if it has checks.
func (c *Client) Settled(id string) error {
	a, err := c.Show(id)
	if err != nil {
		return err
	}
	healthy := a.TasksHealthy == a.Instances || len(a.Checks) == 0
	if len(a.Deployments) > 0 || a.TasksRunning != a.Instances || len(a.Tasks) != a.Instances || !healthy {
		why, _ := c.Do("GET", Marathon+"/deployments", nil)
		return fmt.Errorf("app %s: %d deployments, %d tasks, %d running, %d healthy of %d; last failure %v; deployments: %v",
			id, len(a.Deployments), len(a.Tasks), a.TasksRunning, a.TasksHealthy, a.Instances, a.LastFailure, why)
	}
	return nil
}

// Settle waits until an app is Settled.
func (c *Client) Settle(t testing.TB, id string, limit time.Duration) {
	t.Helper()
	Until(t, limit, "settling "+id, func() error { return c.Settled(id) })
}

// Deploy adds an app or changes it wholly, and waits until it is settled.
func (c *Client) Deploy(t testing.TB, app Definition) {
	t.Helper()
	id := app["id"].(string)
	a, err := c.Do("PUT", Marathon+"/apps"+id+"?partialUpdate=false&force=true", app)
	if err != nil || a.Status/100 != 2 {
		t.Fatalf("deploy %s: %v, %v", id, a, err)
	}
	c.Settle(t, id, settleLimit)
}

// settleLimit bounds a deployment of a few instances on a busy machine.
const settleLimit = 60 * time.Second

// Remove removes an app and waits until it and its tasks are gone.
func (c *Client) Remove(t testing.TB, id string) {
	t.Helper()
	a, err := c.Do("DELETE", Marathon+"/apps"+id+"?force=true", nil)
	if err != nil || a.Status != http.StatusOK {
		t.Errorf("remove %s: %v, %v", id, a, err)
		return
	}
	var all struct{ Tasks []Task }
	Until(t, settleLimit, "removing "+id, func() error {
		c.Ask(t, "GET", Marathon+"/tasks", nil, 200, &all)
		for _, task := range all.Tasks {
			if task.AppID == id {
				return fmt.Errorf("task %s is %s", task.ID, task.State)
			}
		}
		return nil
	})
}

// VIP is the address of an app's first VIP, "198.18.3.7:80", once somebody answers there: machines hear of a new
// instance a moment after its deployment has ended.
func (c *Client) VIP(t testing.TB, id string) string {
	t.Helper()
	var vips []struct{ Owner, Address string }
	c.Ask(t, "GET", "/net/v1/vips", nil, 200, &vips)
	for _, v := range vips {
		if v.Owner == id {
			Until(t, settleLimit, "an answer of "+id+" at "+v.Address, func() error {
				resp, err := http.Get("http://" + v.Address)
				if err == nil {
					err = resp.Body.Close()
				}
				return err
			})
			return v.Address
		}
	}
	t.Fatalf("app %s has no VIP: %v", id, vips)
	return ""
}

// TaskPath is the kernel API's path of a task.
func TaskPath(task string) string { return "/tasks/v1/" + url.PathEscape(task) }

// Definition is an app as it is sent.
type Definition map[string]any

// ProbeApp defines an app of probes: bridge network, a VIP named like the app on port 80, a health check each second.
func (h *Datacenter) ProbeApp(id string, instances int) Definition {
	return Definition{
		"id": id, "instances": instances, "cpus": 0.1, "mem": 32, "args": []string{"8080"},
		"networks": []any{Definition{"mode": "container/bridge"}},
		"container": Definition{"type": "MESOS", "docker": Definition{"image": ProbeImage},
			"volumes": []any{Definition{"containerPath": reportsTarget, "hostPath": h.Reports, "mode": "RW"}},
			"portMappings": []any{Definition{"containerPort": 8080, "hostPort": 0, "name": "web",
				"labels": Definition{"VIP_0": id + ":80"}}}},
		"healthChecks": []any{Definition{"protocol": "HTTP", "path": "/health", "portIndex": 0, "gracePeriodSeconds": 30,
			"intervalSeconds": 1, "timeoutSeconds": 5, "maxConsecutiveFailures": 2}},
		"taskKillGracePeriodSeconds": 5,
	}
}

// With returns the definition with some fields changed.
func (d Definition) With(fields Definition) Definition {
	out := Definition{}
	for k, v := range d {
		out[k] = v
	}
	for k, v := range fields {
		out[k] = v
	}
	return out
}

const reportsTarget = "/reports"

// File writes a definition to a file, for the command.
func (d Definition) File(t testing.TB) string {
	t.Helper()
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "app.json")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
