package kubernetes

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

func TestClusterBecomesReadyStepByStep(t *testing.T) {
	w := newWorld(t)
	if err := w.clusters.Create(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(2)}}); err != nil {
		t.Fatal(err)
	}
	s := w.steward("a")
	s.change(func(st *wire.Status) { st.Probe.Done = false })
	w.member("a", "node-1")
	w.member("a", "node-2")
	s.join("node-1")
	v := w.until("a", "waiting for node-2", func(v View) bool {
		return strings.Contains(strings.Join(v.WaitsFor, ";"), "node-2") && len(v.WaitsFor) == 1
	})
	if v.State != Creating {
		t.Errorf("with one node of two: got %s, want %s", v.State, Creating)
	}
	s.join("node-2")
	w.until("a", "waiting for a pod", func(v View) bool {
		return strings.Contains(strings.Join(v.WaitsFor, ";"),
			"first pod")
	})
	s.change(func(st *wire.Status) { st.Probe.Done = true })
	v = w.until("a", "ready", isReady)
	if v.Server == "" || v.Release != "v1.37.2" || v.ReadyAt.IsZero() || len(v.Members) != 3 {
		t.Errorf("ready: got %+v", v)
	}
}

func TestWhatEndsComesBackWhereItWas(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a"})
	before := w.member("a", "node-1")
	w.kernel.End(kernel.InstanceID(strings.TrimSuffix(before.Task, ".node-1")), kernel.Failed, "killed")
	w.until("a", "with another node-1", func(v View) bool {
		return v.Members[1].Task != before.Task &&
			v.Members[1].Task != ""
	})
	after := w.member("a", "node-1")
	if after.Address != before.Address || after.Restarts != 1 {
		t.Errorf("after its end: got address %s and %d restarts, want %s and 1", after.Address, after.Restarts,
			before.Address)
	}
}

// A reservation keeps its port for good; one that is somebody else's from the start would never be had. Nodes that were
// told where the control plane is are told anew.
func TestPortThatIsTakenIsGivenUp(t *testing.T) {
	w := newWorld(t)
	if err := w.clusters.Create(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(1)}}); err != nil {
		t.Fatal(err)
	}
	started := func(v View) bool {
		return v.Server != "" && len(v.Members) == 2 && v.Members[0].Task != "" && v.Members[1].Task != ""
	}
	before := w.until("a", "an address", started)
	plane := strings.TrimSuffix(before.Members[0].Task, "."+core.ControlPlane)
	w.kernel.Report(kernel.InstanceID(plane), func(s *kernel.Status) {
		s.State, s.Reason, s.Message = kernel.Failed, kernel.ReasonPort, "tcp port is taken by another"
	})
	w.until("a", "another address", func(v View) bool {
		return started(v) && v.Server != before.Server && v.Members[1].Task != before.Members[1].Task
	})
}

// A node's machine is removed: the node begins anew on another, with nothing of what it kept.
func TestNodeOfARemovedMachineBeginsAnew(t *testing.T) {
	w := newWorld(t)
	w.kernel.AddAgent("a2", 50)
	w.kernel.Bundle("a2", map[string]string{"kubernetes/v1.37": "v1.37.2"})
	s := w.ready(Definition{Name: "a", Nodes: Nodes{Count: new(2)}})
	on := func(member string) kernel.AgentID {
		for _, c := range w.kernel.Reservations(Framework) {
			if strings.HasSuffix(c.Name, member) {
				return c.Agent
			}
		}
		t.Fatalf("there is no reservation of %s", member)
		return ""
	}
	lost := on("node-1")
	if lost == on(core.ControlPlane) {
		t.Fatalf("node-1 is where the control plane is, on %s", lost)
	}
	w.kernel.RemoveAgent(lost)
	w.until("a", "node-1 elsewhere", func(v View) bool { return v.Members[1].Task != "" && v.Members[1].Restarts == 1 })
	if now := on("node-1"); now == lost {
		t.Errorf("node-1 is on %s, which was removed", now)
	}
	s.join("node-1")
	w.until("a", "ready again", isReady)
}

func TestNodesLeaveDrainedAndStopped(t *testing.T) {
	w := newWorld(t)
	s := w.ready(Definition{Name: "a", Nodes: Nodes{Count: new(3)}})
	if err := w.clusters.Change(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(1)}}); err != nil {
		t.Fatal(err)
	}
	w.until("a", "one node", func(v View) bool { return isReady(v) && len(v.Members) == 2 })
	if got := s.lastDesired().Nodes; len(got) != 1 || got[0] != "node-1" {
		t.Errorf("the steward was told nodes %v, want node-1", got)
	}
	if kept := w.kernel.Reservations(Framework); len(kept) != 2 {
		t.Errorf("got %d reservations, want those of the control plane and one node: %v", len(kept), kept)
	}
	if err := w.clusters.Change(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(2)}}); err != nil {
		t.Fatal(err)
	}
	w.member("a", "node-2")
	s.join("node-2")
	w.until("a", "two nodes", func(v View) bool { return isReady(v) && len(v.Members) == 3 })
}

func TestNodesChangeTheirSizeWhileTheyRun(t *testing.T) {
	w := newWorld(t)
	s := w.ready(Definition{Name: "a"})
	before := w.member("a", "node-1")
	s.change(func(status *wire.Status) { status.Nodes[0].MilliCPU, status.Nodes[0].Mem = 500, 1024<<20 })
	if err := w.clusters.Change(t.Context(), Definition{Name: "a", Nodes: Nodes{CPUs: 2, Mem: 2048}}); err != nil {
		t.Fatal(err)
	}
	v := w.until("a", "resized, which its node has yet to tell", func(v View) bool {
		return v.Members[1].CPUs == 2 && v.Members[1].Mem == 2048 && v.State == Changing && len(v.WaitsFor) == 1
	})
	s.change(func(status *wire.Status) { status.Nodes[0].MilliCPU, status.Nodes[0].Mem = 2000, 2048<<20 })
	w.until("a", "ready", func(v View) bool { return v.State == Ready })
	if v.Members[1].Task != before.Task {
		t.Errorf("the node was replaced: task %s, want %s", v.Members[1].Task, before.Task)
	}
	full := errors.Join(errdefs.ErrResourceExhausted, errors.New("machine m lacks cpus"))
	w.kernel.RefuseSizes(full)
	if err := w.clusters.Change(t.Context(), Definition{Name: "a", Nodes: Nodes{CPUs: 100}}); err != nil {
		t.Fatal(err)
	}
	w.until("a", "saying why it keeps its size",
		func(v View) bool { return strings.Contains(strings.Join(v.WaitsFor, ";"), "lacks cpus") })
}

func TestDeletedClusterLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a", Nodes: Nodes{Count: new(2)}})
	if err := w.clusters.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.gone("a")
	if left := w.groups("a"); len(left) > 0 {
		t.Errorf("groups left: %v", left)
	}
	if left := w.kernel.Reservations(Framework); len(left) > 0 {
		t.Errorf("reservations left: %v", left)
	}
	snap, err := w.store.Snapshot(t.Context(), "kubernetes/")
	if err != nil || len(snap.Items) > 0 {
		t.Errorf("rows left: %v, %v", snap.Items, err)
	}
	w.ready(Definition{Name: "a"}) // its name is free
}

// Whatever step the process ends in, the next leader goes on from what is there.
func TestNextLeaderGoesOn(t *testing.T) {
	w := newWorld(t)
	if err := w.clusters.Create(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(2)}}); err != nil {
		t.Fatal(err)
	}
	w.kernel.Failover()
	w.lead()
	w.kernel.Complete(true)
	s := w.steward("a")
	w.member("a", "node-1")
	w.member("a", "node-2")
	w.kernel.Failover()
	w.lead()
	w.kernel.Complete(true)
	s.join("node-1", "node-2")
	w.until("a", "ready", isReady)
	if got := len(w.groups("a")); got != 3 {
		t.Errorf("got %d groups, want 3", got)
	}
	if err := w.clusters.Change(t.Context(), Definition{Name: "a", Nodes: Nodes{Count: new(1)}}); err != nil {
		t.Fatal(err)
	}
	w.kernel.Failover()
	w.lead()
	w.kernel.Complete(true)
	w.until("a", "one node", func(v View) bool { return isReady(v) && len(v.Members) == 2 })
	if err := w.clusters.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.kernel.Failover()
	w.lead()
	w.kernel.Complete(true)
	w.gone("a")
	if left := w.kernel.Reservations(Framework); len(left) > 0 {
		t.Errorf("reservations left: %v", left)
	}
}

func TestLoadBalancersGetAddressesAndPorts(t *testing.T) {
	w := newWorld(t)
	s := w.ready(Definition{Name: "a"})
	s.change(func(st *wire.Status) {
		b := wire.BalancerRequest{Namespace: "default", Name: "web", UID: "1"}
		b.Ports = append(b.Ports, wire.BalancerPort{Name: "http", Protocol: "TCP", Port: 80, NodePort: 31234})
		st.LoadBalancers = []wire.BalancerRequest{b}
	})
	v := w.until("a", "balanced", func(v View) bool {
		return len(v.Balanced) == 1 && v.Balanced[0].Address != "" && len(v.Balanced[0].Published) == 1
	})
	b := v.Balanced[0]
	if !strings.HasPrefix(b.Address, "198.18.") || b.Published[0] != "192.0.2.1:20001" ||
		b.DNS != "web.default.a.kubernetes.l4lb.thisdcos.directory" {
		t.Errorf("got %+v", b)
	}
	deadline := time.After(patience)
	for len(s.lastDesired().LoadBalancers) == 0 {
		select {
		case <-deadline:
			t.Fatalf("the steward was never told: %+v", s.lastDesired())
		case <-time.After(10 * time.Millisecond): // what the steward was told has no event of its own
		}
	}
	if d := s.lastDesired().LoadBalancers[0]; d.Ingress[0].String() != b.Address ||
		d.Published["80"] != "192.0.2.1:20001" {
		t.Errorf("the steward was told %+v", d)
	}
	w.lead()
	w.until("a", "the same after another leader", func(v View) bool {
		return len(v.Balanced) == 1 && len(v.Balanced[0].Published) == 1 && v.Balanced[0].Published[0] == "192.0.2.1:20001"
	})
}

func TestMembersCertificatesAreTheirOwn(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "a"})
	w.ready(Definition{Name: "b"})
	a, err := w.clusters.Secret(t.Context(), "a1", "kubernetes/a/node-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.clusters.Secret(t.Context(), "a1", "kubernetes/a/node-1")
	if err != nil || !bytes.Equal(a.Files["kubelet.key"], again.Files["kubelet.key"]) {
		t.Errorf("asked again: another key, or %v", err)
	}
	for _, name := range []string{"ca.key", "sa.key", "encryption.yaml"} {
		if a.Files[name] != nil {
			t.Errorf("a node is given %s", name)
		}
	}
	b, err := w.clusters.Secret(t.Context(), "a1", "kubernetes/b/node-1")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b.Files["ca.crt"])
	block, _ := pem.Decode(a.Files["kubelet.crt"])
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("a's node is known to b")
	}
	for _, ref := range []string{"kubernetes/a/node-2", "kubernetes/c/node-1", "kubernetes/a", "",
		"kubernetes/../a/node-1"} {
		if _, err := w.clusters.Secret(t.Context(), "a1", ref); !errdefs.IsPermissionDenied(err) {
			t.Errorf("secret %q: got %v, want a refusal", ref, err)
		}
	}
	if _, err := w.clusters.Secret(t.Context(), "a2", "kubernetes/a/node-1"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("another agent: got %v, want a refusal", err)
	}
	// Nothing of it stands readable in the store.
	snap, err := w.store.Snapshot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range snap.Items {
		if bytes.Contains(item.Value, []byte("PRIVATE KEY")) {
			t.Errorf("row %s holds a key in the clear", item.Key)
		}
	}
}

func TestWhatNeverChangesIsRefused(t *testing.T) {
	w := newWorld(t)
	w.ready(Definition{Name: "taken"})
	for what, to := range map[string]Definition{"version": {Name: "taken", Version: "1.36"},
		"group": {Name: "taken", Group: "/other"},
		"disk":  {Name: "taken", Nodes: Nodes{Disk: 99999}}, "podCIDR": {Name: "taken", PodCIDR: "10.1.0.0/16"}} {
		if err := w.clusters.Change(t.Context(), to); !errdefs.IsInvalidArgument(err) {
			t.Errorf("changing %s: got %v, want a refusal", what, err)
		}
	}
}
