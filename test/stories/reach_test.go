package stories

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// reached is a service and a task of another one that calls it.
type reached struct {
	h      *testbed.Datacenter
	c      *testbed.Client
	id     string
	vip    string
	inside string // URL of the calling task
}

func TestAServiceIsReachedByNameAndAddressFromEverywhere(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	r := &reached{h: h, c: c, id: "/reach/me"}
	removeAfter(t, c, r.id)
	c.Deploy(t, h.ProbeApp(r.id, 2).With(testbed.Definition{"labels": testbed.Definition{"HAPROXY_GROUP": "external"}}))
	removeAfter(t, c, "/caller")
	c.Deploy(t, h.ProbeApp("/caller", 1))
	r.vip = c.VIP(t, r.id)
	r.inside = "http://" + c.App(t, "/caller").Tasks[0].Address() + ":8080"

	t.Run("names inside of a container", r.names)
	t.Run("from a container", func(t *testing.T) {
		for _, at := range []string{r.vip, "reachme.marathon.l4lb.thisdcos.directory"} {
			r.ours(t, at, ask(t, r.inside+"/get?url="+url.QueryEscape("http://"+at+"/")))
		}
	})
	t.Run("from itself", func(t *testing.T) {
		for _, task := range c.App(t, r.id).Tasks {
			for range 4 { // of two instances: each meets itself now and then
				r.ours(t, "its own VIP", ask(t, "http://"+task.Address()+":8080/get?url="+url.QueryEscape("http://"+r.vip+"/")))
			}
		}
	})
	t.Run("from the machine", r.fromMachine)
	t.Run("from another computer", r.fromComputer)
	t.Run("nobody behind it", func(t *testing.T) {
		c.Ask(t, "PATCH", testbed.Marathon+"/apps"+r.id, testbed.Definition{"instances": 0}, 200, nil)
		c.Settle(t, r.id, 30*time.Second)
		begin := time.Now()
		if who, err := testbed.Who(r.vip); err == nil {
			t.Errorf("a VIP without instances answers %q", who)
		} else if took := time.Since(begin); took > time.Second {
			t.Errorf("a VIP without instances refuses after %v, want at once: %v", took, err)
		}
	})
}

// ours judges that an answer is of a task of the service.
func (r *reached) ours(t *testing.T, at, answer string) {
	t.Helper()
	if !strings.Contains(answer, testbed.Prefix(r.id)) {
		t.Errorf("%s: got %q, want a task of %s", at, answer, r.id)
	}
}

func (r *reached) names(t *testing.T) {
	address, _, _ := strings.Cut(r.vip, ":")
	for _, name := range []string{"reachme.marathon.l4lb.thisdcos.directory", "ReachMe.Marathon.L4LB.thisdcos.directory", "reachme.marathon.dclb.thisdcos.global"} {
		if got := ask(t, r.inside+"/lookup?name="+name); strings.TrimSpace(got) != address {
			t.Errorf("%s: got %q, want %s", name, got, address)
		}
	}
	for _, name := range []string{"me.reach.marathon.mesos", "me-reach.marathon.mesos"} {
		if got := strings.Fields(ask(t, r.inside+"/lookup?name="+name)); len(got) == 0 {
			t.Errorf("%s: no address", name)
		}
	}
	var got, want []string
	for _, task := range r.c.App(t, r.id).Tasks {
		want = append(want, fmt.Sprint(task.Ports[0]))
	}
	for _, line := range strings.Fields(ask(t, r.inside+"/lookup?srv=true&name=_me-reach._tcp.marathon.mesos")) {
		host, port, _ := strings.Cut(line, ":")
		got = append(got, port)
		at := strings.Fields(ask(t, r.inside+"/lookup?name="+strings.TrimSuffix(host, ".")))
		if len(at) != 1 {
			t.Errorf("SRV target %s: got addresses %v, want one", host, at)
			continue
		}
		who, err := testbed.Who(net.JoinHostPort(at[0], port))
		if err != nil {
			t.Errorf("SRV record %s: %v", line, err)
		}
		r.ours(t, line, who)
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("SRV records name ports %v, want the tasks' host ports %v", got, want)
	}
}

func (r *reached) fromMachine(t *testing.T) {
	seen := map[string]bool{}
	testbed.Until(t, 10*time.Second, "each instance to answer at the VIP", func() error {
		who, err := testbed.Who(r.vip)
		if err != nil {
			t.Fatal(err)
		}
		r.ours(t, r.vip, who)
		if seen[who] = true; len(seen) < 2 {
			return fmt.Errorf("only %v so far", seen)
		}
		return nil
	})
	for _, task := range r.c.App(t, r.id).Tasks {
		for _, host := range []string{"127.0.0.1", outward(t)} {
			at := fmt.Sprintf("%s:%d", host, task.Ports[0])
			if who, err := testbed.Who(at); err != nil || who != task.ID {
				t.Errorf("host port %s: got %q, %v, want %s", at, who, err, task.ID)
			}
		}
	}
}

func (r *reached) fromComputer(t *testing.T) {
	other, err := testbed.NewComputer()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	app := r.c.App(t, r.id)
	outside := strings.TrimSpace(r.h.Must(t, "app", "show", r.id, "--outside"))
	for _, at := range []string{outside, fmt.Sprintf("http://%s:%d", other.Machine, app.Container.PortMappings[0].ServicePort)} {
		who, err := from(other.Dial, at+"/")
		if err != nil {
			t.Errorf("%s: %v", at, err)
		}
		r.ours(t, at, who)
	}
	at := fmt.Sprintf("http://%s:%d/", other.Machine, app.Tasks[0].Ports[0])
	if who, err := from(other.Dial, at); err != nil || !strings.Contains(who, app.Tasks[0].ID) {
		t.Errorf("host port %s: got %q, %v, want %s", at, who, err, app.Tasks[0].ID)
	}
	closed := fmt.Sprintf("http://%s:%d/", other.Machine, r.c.App(t, "/caller").Container.PortMappings[0].ServicePort)
	if who, err := from(other.Dial, closed); err == nil {
		t.Errorf("%s is not published and answers %q", closed, who)
	}
}

// ask gets a URL that must answer 200.
func ask(t *testing.T, url string) string {
	t.Helper()
	text, err := from(nil, url)
	if err != nil {
		t.Errorf("%s: %v", url, err)
	}
	return text
}

func from(dial func(context.Context, string, string) (net.Conn, error), url string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

// outward is the machine's address towards others.
func outward(t *testing.T) string {
	t.Helper()
	c, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	host, _, _ := net.SplitHostPort(c.LocalAddr().String())
	return host
}
