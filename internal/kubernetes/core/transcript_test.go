package core

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// TestDecide replays transcripts: commands, and after ---- what is decided. Members are named "plane" and "node-1"; a
// member that is launched is placed while there is room, and runs when a line says so.
//
//	create N                      a cluster of N nodes
//	nodes N | cpus N              its definition is changed
//	delete                        somebody asks for its end
//	room | full                   launches are placed | wait
//	run|sick|away|back M...       what becomes of instances
//	fail M WHY | port M           an instance ends by itself | its host port is somebody else's
//	end M...                      an instance that was stopped ends
//	taken M...                    the machine of a member is removed, with what it kept
//	removed M...                  the agent has deleted a released reservation
//	ready M... | lost M...        the steward tells that nodes are ready | are not
//	drained                       the steward has removed the nodes that are too many
//	sized                         the steward tells nodes' sizes as they are
//	silent | answers              the steward does not answer | does again
//	balances NAME...              the steward tells of load balancers, each of port 80
//	load FILE | given M | lacks M WHY   an archive is loaded | a node has what it lacked | does not get it
//	refuse launch|resize|release|expose|save WHY | allow
//	time D                        time passes
//	incomplete | complete         agents have (not) reported
//	failover                      another leader, from the row and what the kernel has
//	show                          where it stands
func TestDecide(t *testing.T) {
	files, err := filepath.Glob("testdata/decide/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: got %v, %v", files, err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s (-want +got), -update writes it:\n%s", name, d)
			}
		})
	}
}

func replay(t *testing.T, text string) string {
	d := newDriver()
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		out.WriteString(commands + "\n")
		if !slices.ContainsFunc(strings.Split(commands, "\n"), func(l string) bool { return !strings.HasPrefix(l, "#") }) {
			continue
		}
		for line := range strings.SplitSeq(commands, "\n") {
			if err := d.command(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			d.settle()
		}
		out.WriteString("----\n" + d.out.String())
		d.out.Reset()
	}
	return out.String()
}

// driver is a datacenter around one cluster: it does what is decided and reports it, as whoever drives the core has to.
type driver struct {
	s      *State
	c      *Cluster
	now    time.Time
	room   bool
	refuse map[string]string // by what is asked
	next   int
	wake   time.Time
	out    strings.Builder
}

func newDriver() *driver {
	d := &driver{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), room: true, refuse: map[string]string{},
		s: NewState(kernel.PortRange{First: 20001, Last: 20010})}
	d.s.complete = true
	return d
}

func (d *driver) say(format string, args ...any) { fmt.Fprintf(&d.out, format+"\n", args...) }

func (d *driver) command(line string) error {
	f := strings.Fields(line)
	rest := strings.Join(f[min(2, len(f)):], " ")
	switch f[0] {
	case "#":
	case "create":
		d.c = clusterOf("a", number0(f[1]))
		d.s.Put(d.c)
	case "nodes", "cpus":
		if f[0] == "nodes" {
			d.c.Nodes.Count = new(number0(f[1]))
		} else {
			d.c.Nodes.CPUs = float64(number0(f[1]))
		}
		d.c.Changed(d.now)
	case "delete":
		d.c.Deleted = d.now
		d.c.End(d.now)
	case "room", "full":
		if d.room = f[0] == "room"; d.c == nil || !d.room {
			return nil
		}
		for _, name := range sortedKeys(d.c.members) {
			if m := d.c.members[name]; m.waiting != nil {
				m.waiting = nil
				d.place(m)
			}
		}
	case "load":
		d.c.Load(f[1], nil, nil)
	case "refuse":
		d.refuse[f[1]] = rest
	case "allow":
		clear(d.refuse)
	case "time":
		pause, err := time.ParseDuration(f[1])
		d.now = d.now.Add(pause)
		return err
	case "complete", "incomplete":
		d.s.Observe(kernel.Changes{Complete: f[0] == "complete"})
	case "failover":
		d.failover()
	case "show":
		d.show()
	case "silent", "answers", "ready", "lost", "drained", "sized", "balances":
		d.steward(f[0], f[1:])
	case "fail", "lacks":
		return d.report(f[0], f[1], rest)
	default:
		for _, m := range f[1:] {
			if err := d.report(f[0], m, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func number0(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func memberNamed(name string) string {
	if name == "plane" {
		return ControlPlane
	}
	return name
}

func shown(name string) string { return strings.Replace(name, ControlPlane, "plane", 1) }

// steward has it say something.
func (d *driver) steward(what string, nodes []string) {
	if what == "silent" {
		d.c.Hear(nil, errors.New("no answer"), d.now)
		return
	}
	said := wire.Status{Version: "v1.37.2", Ready: true, DNS: true,
		Addons: wire.AddonsStatus{Applied: true}, Probe: wire.ProbeStatus{Done: true}}
	if d.c.steward.told != nil {
		said = *d.c.steward.told
	}
	said.Nodes = slices.Clone(said.Nodes)
	switch what {
	case "drained":
		said.Desired = d.c.Desired().Revision()
		said.Nodes = slices.DeleteFunc(said.Nodes, func(n wire.NodeStatus) bool { return !d.c.wants(n.Name) })
	case "sized":
		for k := range said.Nodes {
			size := d.c.NodeSize()
			said.Nodes[k].MilliCPU, said.Nodes[k].Mem = size.Guarantee.MilliCPU, size.Limit.Mem
		}
	case "balances":
		said.LoadBalancers = nil
		for _, name := range nodes {
			said.LoadBalancers = append(said.LoadBalancers, asks(name, tcp(80)))
		}
		nodes = nil
	}
	for _, name := range nodes {
		n := wire.NodeStatus{Name: name, Ready: what == "ready"}
		if !n.Ready {
			n.Message = "its kubelet is silent"
		}
		said.Nodes = append(slices.DeleteFunc(said.Nodes, func(n wire.NodeStatus) bool { return n.Name == name }), n)
	}
	d.c.Hear(&said, nil, d.now)
}

// report says what becomes of a member.
func (d *driver) report(what, name, why string) error {
	m := d.c.members[memberNamed(name)]
	if m == nil {
		return fmt.Errorf("no member %s", name)
	}
	switch what {
	case "removed":
		m.reservation = nil
		return nil
	case "given":
		d.c.EndSupply(Supply{Node: m.node(), Files: m.lacks()}, d.now)
		return nil
	case "lacks":
		d.c.EndSupply(Supply{Node: m.node(), Err: errors.New(why)}, d.now)
		return nil
	}
	if m.instance == nil {
		return fmt.Errorf("%s has no instance", name)
	}
	i := *m.instance
	st := i.Statuses[0]
	switch what {
	case "taken":
		lost := *m.reservation
		lost.Lost, i.Removed = true, true
		m.reservation = &lost
		st.State, st.Message = kernel.Gone, "its machine was removed"
	case "run", "sick":
		st.State, st.Health = kernel.Running, []kernel.Health{{Known: true, Alive: what == "run"}}
		if st.Started.IsZero() {
			st.Started = d.now
		}
	case "away":
		i.Away = d.now
	case "back":
		i.Away = time.Time{}
	case "fail", "end":
		st.State, st.Message, i.Removed = kernel.Failed, why, true
	case "port":
		st.State, st.Reason, st.Message, i.Removed = kernel.Failed, kernel.ReasonPort, "its port is taken", true
	default:
		return fmt.Errorf("unknown command %s", what)
	}
	i.Statuses = []kernel.Status{st}
	d.s.ObserveInstance("a", m.name, i, d.now)
	return nil
}

// place gives a member its reservation, unless it has it, and an instance.
func (d *driver) place(m *member) kernel.InstanceID {
	d.next++
	if m.reservation == nil {
		m.reservation = &kernel.ReservationView{Reservation: kernel.Reservation{Name: ReservationName("a", m.name)},
			Agent: "a1", Address: netip.AddrFrom4([4]byte{10, 1, 0, byte(d.next)}), HostPorts: []uint16{uint16(31000 + d.next)}}
	}
	id := kernel.InstanceID(fmt.Sprint("i", d.next))
	d.s.ObserveInstance("a", m.name, kernel.Instance{
		Assignment: kernel.Assignment{ID: id, Placed: d.now, Goal: kernel.GoalRun, Address: m.reservation.Address,
			Sizes: []kernel.Size{m.size()}},
		Framework: Framework, Agent: "a1", Hostname: "m1", Statuses: []kernel.Status{{State: kernel.Starting}}}, d.now)
	return id
}

// failover begins anew from the row and what the kernel has; its queue is lost.
func (d *driver) failover() {
	old := d.c
	d.s = NewState(d.s.publish)
	d.c = New(old.Row, old.archives)
	d.s.Put(d.c)
	for name, m := range old.members {
		if m.reservation != nil {
			d.c.member(name).reservation = m.reservation
		}
		if m.instance != nil {
			d.s.ObserveInstance("a", name, *m.instance, d.now)
		}
	}
}

func (d *driver) show() {
	state, waits := d.c.stand()
	d.say("%s", state)
	for _, w := range waits {
		d.say("  waits: %s", w)
	}
	for _, w := range d.c.View(func() []kernel.AgentView { return nil }).Warnings {
		d.say("  warns: %s", w)
	}
}

// settle decides until nothing is left to do, does it, and writes it down.
func (d *driver) settle() {
	if d.c == nil {
		return
	}
	for {
		dec := d.s.decide(d.c, d.now)
		if !dec.Wake.Equal(d.wake) {
			if d.wake = dec.Wake; !d.wake.IsZero() {
				d.say("wake in %v", dec.Wake.Sub(d.now))
			}
		}
		if !d.do(dec) {
			break
		}
	}
	if d.c != nil && d.c.ReadyAt.IsZero() {
		if state, _ := d.c.stand(); state == Ready {
			d.c.ReadyAt = d.now
			d.say("is ready")
		}
	}
}

// do carries out and reports whether there was anything.
func (d *driver) do(dec Decision) bool {
	for _, name := range dec.Withdraw {
		d.say("withdraw %s", shown(name))
		d.c.members[name].waiting = nil
	}
	for _, why := range sortedKeys(dec.Stop) {
		for _, id := range dec.Stop[why] {
			m := d.c.members[d.c.memberWith(id)]
			d.say("stop %s: %s", shown(m.name), why)
			i := *m.instance
			i.Goal = kernel.GoalStop
			m.instance = &i
		}
		d.c.Stopped(dec.Stop[why], why, d.now)
	}
	for _, name := range dec.Launch {
		d.launch(d.c.members[name])
	}
	for id, sizes := range dec.Resize {
		size := sizes[0].Guarantee
		d.say("resize %s to %d milli-CPUs and %d MiB", shown(d.c.memberWith(id)), size.MilliCPU, size.Mem>>20)
		d.c.Resized(id, sizes[0], d.refusal("resize"), d.now)
	}
	for _, name := range dec.Release {
		d.release(d.c.members[name])
	}
	for _, name := range dec.Load {
		_, files := d.c.BeginSupply(name)
		d.say("load into %s: %s", shown(name), strings.Join(files, " "))
	}
	if dec.Exposure != nil {
		d.expose(dec.Exposure)
	}
	if dec.Gone {
		d.say("gone")
		d.s.Drop("a")
		d.c = nil
		return false
	}
	return len(dec.Withdraw)+len(dec.Stop)+len(dec.Launch)+len(dec.Resize)+len(dec.Release)+len(dec.Load) > 0 ||
		dec.Exposure != nil
}

// refusal is what somebody says to what is asked; nil: it is done.
func (d *driver) refusal(what string) error {
	if why := d.refuse[what]; why != "" {
		return errors.New(why)
	}
	return nil
}

func (d *driver) release(m *member) {
	d.say("release %s", shown(m.name))
	err := d.refusal("release")
	if d.c.Settle(m.name, ReleaseStep, err, d.now); err != nil {
		return
	}
	released := *m.reservation
	released.Released = true
	if m.reservation = &released; released.Lost { // nobody has to delete anything
		m.reservation = nil
	}
}

func (d *driver) launch(m *member) {
	d.say("launch %s", shown(m.name))
	var id kernel.InstanceID
	var result kernel.LaunchResult
	err := d.refusal("launch")
	switch {
	case err != nil:
	case !d.room || m.reservation != nil && m.reservation.Lost: // nothing is placed with a reservation that is lost
		result.Waiting, result.Refusal = 1, &kernel.Refusal{Agents: 3, Reasons: []kernel.Rejected{{Filter: "mem", Agents: 3}}}
		m.waiting = &kernel.Waiting{Key: ReservationName("a", m.name), Refusal: *result.Refusal}
	default:
		id = d.place(m)
		result.Placed = []*kernel.Record{{Host: &kernel.Host{Hostname: "m1"}}}
	}
	if d.c.Launched(m.name, id, result, err, d.now); err == nil && result.Waiting == 0 {
		d.s.ObserveInstance("a", m.name, *m.instance, d.now)
	}
}

// expose is the kernel's part and the row's in what load balancers ask for.
func (d *driver) expose(x *Exposure) {
	if x.Save {
		err := d.refusal("save")
		if d.c.Settle("", RowStep, err, d.now); err != nil {
			d.say("save %v: refused", x.Published)
			return
		}
		d.c.Published = x.Published
		d.say("save %v", x.Published)
	}
	if !x.Expose {
		return
	}
	err := d.refusal("expose")
	if len(x.Ports) > 0 || err != nil {
		d.say("expose %d ports", len(x.Ports))
	}
	var ports []kernel.EndpointPort
	for _, p := range x.Ports {
		ports = append(ports, kernel.EndpointPort{VIPs: []kernel.EndpointVIP{{Name: p.VIPs[0].Name + "." + Framework,
			Addr: netip.MustParseAddr("198.18.0.7"), Port: p.VIPs[0].Port}}})
	}
	d.c.Exposed(x, ports, err, d.now)
}
