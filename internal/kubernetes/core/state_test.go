package core

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestOnlyAClusterThatLivesCanBeChanged(t *testing.T) {
	s := NewState(kernel.PortRange{})
	for _, name := range []string{"living", "ending", "parked", "lost"} {
		s.Put(clusterOf(name, 1))
	}
	s.Get("ending").Deleted = noon
	s.Get("parked").Park("working on it panicked", noon)
	s.Put(NewLost("lost", Row{ID: "id"}, "kubernetes/clusters/lost", nil, noon))
	for name, c := range map[string]struct {
		is   func(error) bool
		says string
	}{
		"living": {func(err error) bool { return err == nil }, ""},
		"ending": {errdefs.IsFailedPrecondition, "is being deleted"},
		"parked": {errdefs.IsFailedPrecondition, "working on it panicked"},
		"lost":   {errdefs.IsFailedPrecondition, "marina cluster delete lost"},
		"none":   {errdefs.IsNotFound, "marina cluster list"},
	} {
		if _, err := s.Living(name); !c.is(err) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	if alarms := s.Alarms(); len(alarms) != 2 || alarms[0].Subject != "cluster lost" ||
		alarms[1].Subject != "cluster parked" || !strings.Contains(alarms[0].Do, "kubernetes/clusters/lost") {
		t.Errorf("alarms: got %+v, want those of lost and parked, by name", alarms)
	}
	for name, want := range map[string]string{"living": "there already", "ending": "until it is gone",
		"parked": "there already"} {
		if err := s.Admit(name); !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("another %s: got %v, want %q", name, err, want)
		}
	}
	for len(s.clusters) < MaxClusters {
		if err := s.Admit("new"); err != nil {
			t.Fatalf("with %d: %v", len(s.clusters), err)
		}
		s.Put(clusterOf(fmt.Sprint("x", len(s.clusters)), 0))
	}
	if err := s.Admit("new"); !errdefs.IsResourceExhausted(err) {
		t.Errorf("one more than %d: got %v", MaxClusters, err)
	}
	if s.Drop("ending"); s.Admit("ending") != nil {
		t.Error("the name of one that is gone is not free")
	}
}

// What the kernel has of other schedulers, or of clusters whose rows are gone, concerns no cluster.
func TestTheKernelIsSeenByEachClusterForItself(t *testing.T) {
	s := NewState(kernel.PortRange{})
	a, b := clusterOf("a", 1), clusterOf("b", 1)
	s.Put(a)
	s.Put(b)
	s.Due(noon)
	s.Take()
	reserved := func(name string, agent kernel.AgentID) kernel.ReservationView {
		return kernel.ReservationView{Reservation: kernel.Reservation{Name: name}, Agent: agent,
			Address: netip.MustParseAddr("10.1.0.1"), HostPorts: []uint16{31000}}
	}
	machines := []kernel.AgentView{{Agent: kernel.Agent{ID: "a1", Address: netip.MustParseAddr("192.0.2.1")}},
		{Agent: kernel.Agent{ID: "a2"}}}
	look := func(what string, reservations []kernel.ReservationView, queue []kernel.Waiting, touched ...string) {
		t.Helper()
		s.ObserveKernel(reservations, queue, machines)
		if got := s.Take(); !slices.Equal(got, touched) {
			t.Errorf("%s: touched %v, want %v", what, got, touched)
		}
	}
	first := []kernel.ReservationView{reserved("a.control-plane", "a1"), reserved("gone.control-plane", "a1"),
		reserved("plain", "a1")}
	look("the first time", first, nil, "a")
	look("again", first, nil)
	if got := a.View(func() []kernel.AgentView { return nil }).Server; got != "https://192.0.2.1:31000" {
		t.Errorf("its address: got %q", got)
	}
	if p, ok := a.PlaceOf(ControlPlane, "a1"); !ok || p.Machine != "192.0.2.1" || p.Plane != p.Address {
		t.Errorf("its place: got %+v, %v", p, ok)
	}
	if _, ok := a.PlaceOf(ControlPlane, "a2"); ok {
		t.Error("another machine's agent is told its place")
	}
	waits := []kernel.Waiting{{Key: "a.node-1", Instances: []kernel.InstanceID{"i1"}}, {Key: "web"}}
	a.member("node-1").asked = "i1"
	look("waiting", first, waits, "a")
	if m := a.members["node-1"]; m.asked != "" || m.waiting == nil {
		t.Errorf("node-1: got %+v, want that it waits", m)
	}
	moved := []kernel.ReservationView{reserved("a.control-plane", "a2"), reserved("b.control-plane", "a1")}
	look("elsewhere", moved, waits, "a", "b")
	if a.machine != "192.0.2.1" {
		t.Errorf("a machine whose address is not known: got %q, want the one before", a.machine)
	}
	moved[0].Released = true
	look("released", moved, nil, "a")
	if _, ok := a.PlaceOf(ControlPlane, "a2"); ok {
		t.Error("whoever has a released reservation is told its place")
	}
	look("gone", nil, nil, "a", "b")
}

func TestWhatWasRefusedIsAskedForAgainWhenThereIsRoom(t *testing.T) {
	s := NewState(kernel.PortRange{})
	for _, name := range []string{"a", "b"} {
		s.Put(clusterOf(name, 1))
	}
	s.Observe(kernel.Changes{Complete: true})
	if got := s.Take(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("when all agents have reported: touched %v, want all", got)
	}
	s.Get("b").member("node-1").problem = "no machine fits"
	if s.Observe(kernel.Changes{Complete: true, Room: true}); s.Get("b").members["node-1"].problem != "" {
		t.Error("with room, the problem stands")
	}
	if got := s.Take(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("with room: touched %v, want b", got)
	}
}

// What an old instance says changes nothing for the one that took its place.
func TestInstancesAreObservedInAnyOrder(t *testing.T) {
	s := NewState(kernel.PortRange{})
	s.Put(clusterOf("a", 1))
	instance := func(id kernel.InstanceID, placed time.Duration, removed bool) kernel.Instance {
		running := kernel.Status{State: kernel.Running, Started: noon.Add(placed), Message: "ended " + string(id)}
		return kernel.Instance{Removed: removed, Statuses: []kernel.Status{running},
			Assignment: kernel.Assignment{ID: id, Placed: noon.Add(placed), Goal: kernel.GoalRun}}
	}
	for _, i := range []kernel.Instance{instance("new", time.Minute, false), instance("old", 0, false),
		instance("old", 0, true)} {
		if !s.ObserveInstance("a", "node-1", i, noon.Add(2*time.Minute)) {
			t.Fatal("a is not known")
		}
	}
	m := s.Get("a").members["node-1"]
	if m.instance == nil || m.instance.ID != "new" || m.failures != 0 {
		t.Errorf("got %+v, want the new one", m)
	}
	for n, after := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		s.ObserveInstance("a", "node-1", instance("x", 2*time.Minute, false), noon)
		s.ObserveInstance("a", "node-1", instance("x", 2*time.Minute, true), noon.Add(3*time.Minute))
		if got := m.after().Sub(noon.Add(3 * time.Minute)); m.failures != n+1 || got != after {
			t.Errorf("end %d: it may start after %v, want %v", m.failures, got, after)
		}
	}
	s.ObserveInstance("a", "node-1", instance("y", 3*time.Minute, false), noon)
	if s.ObserveInstance("a", "node-1", instance("y", 3*time.Minute, true), noon.Add(time.Hour)); m.failures != 1 {
		t.Errorf("after it ran for long: %d ends in a row, want 1", m.failures)
	}
	if s.ObserveInstance("none", "node-1", instance("z", 0, false), noon) {
		t.Error("a cluster that is none was observed")
	}
}

func TestARowFromWhichNothingCanBeDecidedIsNotUsable(t *testing.T) {
	whole := clusterOf("a", 1).Row
	if err := whole.Usable("a"); err != nil {
		t.Errorf("a whole one: %v", err)
	}
	for what, spoil := range map[string]func(*Row){
		"of another name":     func(r *Row) { r.Name = "b" },
		"without an id":       func(r *Row) { r.ID = "" },
		"without a count":     func(r *Row) { r.Nodes.Count = nil },
		"without encryption":  func(r *Row) { r.Encryption = nil },
		"without privileged":  func(r *Row) { r.Privileged = nil },
		"without pods' range": func(r *Row) { r.PodCIDR = "" },
		"of a torn range":     func(r *Row) { r.ServiceCIDR = "10.96.0" },
	} {
		r := whole
		if spoil(&r); !errdefs.IsDataLoss(r.Usable("a")) {
			t.Errorf("%s: got %v", what, r.Usable("a"))
		}
	}
	ending := whole
	ending.PodCIDR, ending.Deleted = "", noon
	if err := ending.Usable("a"); err != nil {
		t.Errorf("of a deleted one, a range is not needed: %v", err)
	}
}

func TestNamesAreReadAsTheyAreWritten(t *testing.T) {
	for _, member := range []string{ControlPlane, NodeName(1), NodeName(100)} {
		id := kernel.InstanceID(InstancePrefix("team-a", member) + "4d5f")
		if c, m, ok := MemberOf(id); !ok || c != "team-a" || m != member {
			t.Errorf("instance %s: got %s, %s, %v", id, c, m, ok)
		}
		if c, m, ok := memberOf(ReservationName("team-a", member)); !ok || c != "team-a" || m != member {
			t.Errorf("reservation of %s: got %s, %s, %v", member, c, m, ok)
		}
		if c, m, ok := CutSecretRef(SecretRef("team-a", member)); !ok || c != "team-a" || m != member {
			t.Errorf("secret of %s: got %s, %s, %v", member, c, m, ok)
		}
	}
	for _, id := range []kernel.InstanceID{"", "web.instance-1", "marathon_web_x.instance-1",
		"kubernetes_a_b_c.instance-1", "kubernetes_a_node-1"} {
		if c, m, ok := MemberOf(id); ok {
			t.Errorf("instance %q is %s of %s", id, m, c)
		}
	}
	for _, ref := range []string{"", "kubernetes/a", "kubernetes/a/b/c", "marathon/a/b"} {
		if _, _, ok := CutSecretRef(ref); ok {
			t.Errorf("secret %q is one", ref)
		}
	}
	for _, name := range []string{"node-0", "node-01", "node-+1", "node-", "node-x", "mynode-1"} {
		if n, ok := nodeNumber(name); ok {
			t.Errorf("%s is node %d", name, n)
		}
	}
}

// A row is stored: its fields keep their names.
func TestARowIsStoredAsItWas(t *testing.T) {
	r := clusterOf("a", 2).Row
	r.Published, r.Images = map[string]uint16{"default/web/tcp/80": 20001}, []string{"x:1"}
	r.SharedIDs, r.Created = true, noon
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"name":"a","group":"/","version":"1.37","nodes":{"count":2,"cpus":0.5,"mem":1024,"disk":8192},` +
		`"controlPlane":{"cpus":0.1,"mem":256,"disk":2048},"podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/16",` +
		`"encryption":true,"privileged":true,"id":"id-a","vni":4096,"created":"2026-01-01T12:00:00Z",` +
		`"published":{"default/web/tcp/80":20001},"images":["x:1"],"sharedIDs":true}`
	if string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}
