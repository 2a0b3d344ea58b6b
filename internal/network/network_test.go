package network_test

import (
	"testing"

	"github.com/marinaos/marina/internal/kernel"
)

func TestServiceIsReachedFromEverywhere(t *testing.T) {
	h := newHouse(t)
	a := h.group("web", 10, kernel.Mapping{Protocol: "tcp", Container: 80, Host: 31080})
	b := h.group("client", 11)
	e := endpoint(a)
	e.Ports[0].Publish = 8088
	h.check(h.n.Apply(t.Context(), []kernel.Endpoint{e}))

	for _, c := range []struct{ what, ns, at, seen string }{
		{"VIP from the machine", "", "198.18.0.7:80", "10.77.3.1"},
		{"VIP from another group", h.netns(b), "198.18.0.7:80", "10.77.3.11"},
		{"VIP from itself", h.netns(a), "198.18.0.7:80", "10.77.3.1"},
		{"own address from another group", h.netns(b), "10.77.3.10:80", "10.77.3.11"},
		{"own address from the machine", "", "10.77.3.10:80", "10.77.3.1"},
		{"host port from another computer", h.other, "192.168.50.1:31080", "192.168.50.2"},
		{"host port from the machine", "", "192.168.50.1:31080", "192.168.50.1"},
		{"host port from the machine at 127.0.0.1", "", "127.0.0.1:31080", "10.77.3.1"},
		{"host port from another group", h.netns(b), "192.168.50.1:31080", "10.77.3.11"},
		{"host port from itself", h.netns(a), "192.168.50.1:31080", "10.77.3.1"},
		{"published port from another computer", h.other, "192.168.50.1:8088", "192.168.50.2"},
		{"published port from the machine", "", "192.168.50.1:8088", "192.168.50.1"},
		{"published port from the machine at 127.0.0.1", "", "127.0.0.1:8088", "10.77.3.1"},
		{"published port from itself", h.netns(a), "192.168.50.1:8088", "10.77.3.1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			x := *h
			x.TB = t
			x.wantGet(c.ns, c.at, "web", c.seen)
		})
	}
}
