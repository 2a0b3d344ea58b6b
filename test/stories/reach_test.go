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

	"github.com/marinaos/marina/test/house"
)

func TestAServiceIsReachedByNameAndAddressFromEverywhere(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/reach/me"
	removeAfter(t, c, id)
	app := h.Truthful(id, 2).With(house.Definition{"labels": house.Definition{"HAPROXY_GROUP": "external"}})
	c.Deploy(t, app)
	removeAfter(t, c, "/caller")
	c.Deploy(t, h.Truthful("/caller", 1))
	vip := c.VIP(t, id)
	address, _, _ := strings.Cut(vip, ":")
	inside := "http://" + c.App(t, "/caller").Tasks[0].Address() + ":8080"
	ours := func(who string) error {
		if !strings.HasPrefix(who, house.Prefix(id)) {
			return fmt.Errorf("%q answered, want a task of %s", who, id)
		}
		return nil
	}

	t.Run("names inside of a container", func(t *testing.T) {
		for _, name := range []string{"reachme.marathon.l4lb.thisdcos.directory", "ReachMe.Marathon.L4LB.thisdcos.directory", "reachme.marathon.dclb.thisdcos.global"} {
			if got := ask(t, inside+"/lookup?name="+name); strings.TrimSpace(got) != address {
				t.Errorf("%s: got %q, want %s", name, got, address)
			}
		}
		tasks := c.App(t, id).Tasks
		var machine []string
		for _, task := range tasks {
			machine = append(machine, fmt.Sprint(task.Ports[0]))
		}
		slices.Sort(machine)
		for _, name := range []string{"me.reach.marathon.mesos", "me-reach.marathon.mesos"} {
			if got := strings.Fields(ask(t, inside+"/lookup?name="+name)); len(got) == 0 {
				t.Errorf("%s: no address", name)
			}
		}
		var ports []string
		for _, line := range strings.Fields(ask(t, inside+"/lookup?srv=true&name=_me-reach._tcp.marathon.mesos")) {
			host, port, _ := strings.Cut(line, ":")
			ports = append(ports, port)
			at := strings.Fields(ask(t, inside+"/lookup?name="+strings.TrimSuffix(host, ".")))
			if len(at) != 1 {
				t.Errorf("SRV target %s: got addresses %v, want one", host, at)
				continue
			}
			who, err := house.Who(net.JoinHostPort(at[0], port))
			if err == nil {
				err = ours(who)
			}
			if err != nil {
				t.Errorf("SRV record %s: %v", line, err)
			}
		}
		if slices.Sort(ports); !slices.Equal(ports, machine) {
			t.Errorf("SRV records name ports %v, want the tasks' host ports %v", ports, machine)
		}
	})
	t.Run("from a container", func(t *testing.T) {
		for _, at := range []string{vip, "reachme.marathon.l4lb.thisdcos.directory"} {
			if got := ask(t, inside+"/get?url="+url.QueryEscape("http://"+at+"/")); !strings.Contains(got, house.Prefix(id)) {
				t.Errorf("%s: got %q, want a task of %s", at, got, id)
			}
		}
	})
	t.Run("from itself", func(t *testing.T) {
		for _, task := range c.App(t, id).Tasks {
			for range 4 { // two instances: each meets itself now and then
				got := ask(t, "http://"+task.Address()+":8080/get?url="+url.QueryEscape("http://"+vip+"/"))
				if !strings.Contains(got, house.Prefix(id)) {
					t.Errorf("%s calls its own VIP: got %q", task.ID, got)
				}
			}
		}
	})
	t.Run("from the machine", func(t *testing.T) {
		seen := map[string]bool{}
		house.Until(t, 10*time.Second, "each instance to answer at the VIP", func() error {
			who, err := house.Who(vip)
			if err != nil {
				t.Fatal(err)
			}
			if err := ours(who); err != nil {
				t.Fatal(err)
			}
			if seen[who] = true; len(seen) < 2 {
				return fmt.Errorf("only %v so far", seen)
			}
			return nil
		})
		for _, task := range c.App(t, id).Tasks {
			for _, host := range []string{"127.0.0.1", outward(t)} {
				at := fmt.Sprintf("%s:%d", host, task.Ports[0])
				if who, err := house.Who(at); err != nil || who != task.ID {
					t.Errorf("host port %s: got %q, %v, want %s", at, who, err, task.ID)
				}
			}
		}
	})
	t.Run("from another computer", func(t *testing.T) {
		other, err := house.NewComputer()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		outside := strings.TrimSpace(h.Must(t, "app", "show", id, "--outside"))
		for _, at := range []string{outside, fmt.Sprintf("http://%s:%d", other.Machine, c.App(t, id).Container.PortMappings[0].ServicePort)} {
			if who, err := from(other.Dial, at+"/"); err != nil || !strings.Contains(who, house.Prefix(id)) {
				t.Errorf("%s: got %q, %v, want a task of %s", at, who, err, id)
			}
		}
		task := c.App(t, id).Tasks[0]
		at := fmt.Sprintf("http://%s:%d/", other.Machine, task.Ports[0])
		if who, err := from(other.Dial, at); err != nil || !strings.Contains(who, task.ID) {
			t.Errorf("host port %s: got %q, %v, want %s", at, who, err, task.ID)
		}
		closed := fmt.Sprintf("http://%s:%d/", other.Machine, c.App(t, "/caller").Container.PortMappings[0].ServicePort)
		if who, err := from(other.Dial, closed); err == nil {
			t.Errorf("%s is not published and answers %q", closed, who)
		}
	})
	t.Run("nobody behind it", func(t *testing.T) {
		c.Ask(t, "PATCH", house.Marathon+"/apps"+id, house.Definition{"instances": 0}, 200, nil)
		c.Settle(t, id, 30*time.Second)
		begin := time.Now()
		if who, err := house.Who(vip); err == nil {
			t.Errorf("a VIP without instances answers %q", who)
		} else if took := time.Since(begin); took > time.Second {
			t.Errorf("a VIP without instances refuses after %v, want at once: %v", took, err)
		}
	})
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
