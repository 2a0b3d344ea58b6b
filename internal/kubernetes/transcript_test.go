package kubernetes

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
//	removed M...                  the agent has deleted a released claim
//	ready M... | lost M...        the steward tells that nodes are ready | are not
//	drained                       the steward has removed the nodes that are too many
//	sized                         the steward tells nodes' sizes as they are
//	silent | answers              the steward does not answer | does again
//	load FILE | given M | lacks M WHY   an archive is loaded | a node has what it lacked | does not get it
//	refuse launch|resize|release WHY | allow
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
	d := &driver{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), complete: true, room: true, refuse: map[string]string{}}
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

// driver is a datacenter around one cluster: it does what is decided, as carryOut and the kernel would.
type driver struct {
	c        *cluster
	now      time.Time
	complete bool
	room     bool
	refuse   map[string]string // by what is asked
	next     int
	wake     time.Time
	out      strings.Builder
}

func (d *driver) say(format string, args ...any) { fmt.Fprintf(&d.out, format+"\n", args...) }

func (d *driver) command(line string) error {
	f := strings.Fields(line)
	rest := strings.Join(f[min(2, len(f)):], " ")
	switch f[0] {
	case "#":
	case "create":
		def, err := Definition{Name: "a", Nodes: Nodes{Count: new(number0(f[1]))}, Privileged: new(true)}.Complete()
		if err != nil {
			return err
		}
		d.c = newCluster(Row{Definition: def, ID: "id", VNI: firstVNI, Created: d.now})
	case "nodes", "cpus":
		if f[0] == "nodes" {
			d.c.Nodes.Count = new(number0(f[1]))
		} else {
			d.c.Nodes.CPUs = float64(number0(f[1]))
		}
		for _, m := range d.c.members {
			m.problem = ""
		}
	case "delete":
		d.c.Deleted = d.now
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
		d.c.archives = append(slices.Clone(d.c.archives), f[1])
	case "refuse":
		d.refuse[f[1]] = rest
	case "allow":
		clear(d.refuse)
	case "time":
		pause, err := time.ParseDuration(f[1])
		d.now = d.now.Add(pause)
		return err
	case "complete", "incomplete":
		d.complete = f[0] == "complete"
	case "failover":
		d.failover()
	case "show":
		d.show()
	case "silent", "answers", "ready", "lost", "drained", "sized":
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
		return controlPlane
	}
	return name
}

func shown(name string) string { return strings.Replace(name, controlPlane, "plane", 1) }

// steward has it say something.
func (d *driver) steward(what string, nodes []string) {
	if d.c.told == nil {
		d.c.told = &wire.Status{Version: "v1.37.2", Ready: true, DNS: true,
			Addons: wire.AddonsStatus{Applied: true}, Probe: wire.ProbeStatus{Done: true}}
	}
	if d.c.silent = ""; what != "silent" {
		d.c.toldAt = d.now
	}
	switch what {
	case "silent":
		d.c.silent = "no answer"
	case "drained":
		d.c.told.Desired = d.c.desired().Revision()
		d.c.told.Nodes = slices.DeleteFunc(d.c.told.Nodes, func(n wire.NodeStatus) bool { return !d.c.wanted(n.Name) })
	case "sized":
		for k := range d.c.told.Nodes {
			size := d.c.NodeSize()
			d.c.told.Nodes[k].MilliCPU, d.c.told.Nodes[k].Mem = size.Guarantee.MilliCPU, size.Limit.Mem
		}
	}
	for _, name := range nodes {
		d.c.told.Nodes = slices.DeleteFunc(d.c.told.Nodes, func(n wire.NodeStatus) bool { return n.Name == name })
		n := wire.NodeStatus{Name: name, Ready: what == "ready"}
		if !n.Ready {
			n.Message = "its kubelet is silent"
		}
		d.c.told.Nodes = append(d.c.told.Nodes, n)
		if m := d.c.members[name]; what == "ready" && m.instance != nil {
			m.joined = m.instance.ID
		}
	}
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
		for _, file := range d.c.archives {
			m.give(file)
		}
		m.supplying = ""
		d.c.mend(m.name, supplyStep)
		return nil
	case "lacks":
		m.supplying = ""
		d.c.fail(m.name, supplyStep, errors.New(why), d.now)
		return nil
	}
	if m.instance == nil {
		return fmt.Errorf("%s has no instance", name)
	}
	i := *m.instance
	st := i.Statuses[0]
	switch what {
	case "taken":
		claim := *m.reservation
		claim.Lost, i.Removed = true, true
		m.reservation = &claim
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
	d.c.observe(m.name, i, d.now)
	return nil
}

// place gives a member its reservation, unless it has it, and an instance.
func (d *driver) place(m *member) {
	d.next++
	if m.reservation == nil {
		m.reservation = &kernel.ReservationView{Reservation: kernel.Reservation{Name: reservationName("a", m.name)}, Agent: "a1",
			Address: netip.AddrFrom4([4]byte{10, 1, 0, byte(d.next)}), HostPorts: []uint16{uint16(31000 + d.next)}}
	}
	size := d.c.NodeSize()
	if m.name == controlPlane {
		size = d.c.PlaneSize()
	}
	d.c.observe(m.name, kernel.Instance{Assignment: kernel.Assignment{ID: kernel.InstanceID(fmt.Sprint("i", d.next)), Placed: d.now,
		Goal:    kernel.GoalRun,
		Address: m.reservation.Address, Sizes: []kernel.Size{size}},
		Framework: Framework, Agent: "a1", Hostname: "m1",
		Statuses: []kernel.Status{{State: kernel.Starting}}}, d.now)
}

// failover begins anew from the row and what the kernel has; its queue is lost.
func (d *driver) failover() {
	old := d.c
	d.c, d.complete = newCluster(old.Row), false
	d.c.archives = old.archives
	for name, m := range old.members {
		if m.reservation != nil {
			d.c.member(name).reservation = m.reservation
		}
		if m.instance != nil {
			d.c.observe(name, *m.instance, d.now)
		}
	}
}

func (d *driver) show() {
	state, waits := d.c.stand()
	d.say("%s", state)
	for _, w := range waits {
		d.say("  waits: %s", w)
	}
	for _, w := range d.c.view(func() []kernel.AgentView { return nil }).Warnings {
		d.say("  warns: %s", w)
	}
}

// settle decides until nothing is left to do, does it, and writes it down.
func (d *driver) settle() {
	if d.c == nil {
		return
	}
	for {
		d.c.mark(d.now)
		dec := decide(d.c, d.complete, d.now)
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
		for _, g := range dec.Stop[why] {
			m := d.c.members[d.c.memberNamed(g)]
			d.say("stop %s: %s", shown(m.name), why)
			i := *m.instance
			i.Goal = kernel.GoalStop
			m.instance = &i
		}
	}
	for _, name := range dec.Launch {
		d.launch(d.c.members[name])
	}
	for g, sizes := range dec.Resize {
		m := d.c.members[d.c.memberNamed(g)]
		d.say("resize %s to %d milli-CPUs and %d MiB", shown(m.name), sizes[0].Guarantee.MilliCPU, sizes[0].Guarantee.Mem>>20)
		if m.problem = d.refuse["resize"]; m.problem == "" {
			m.has = &sizes[0]
		}
	}
	for _, name := range dec.Release {
		d.say("release %s", shown(name))
		if why := d.refuse["release"]; why != "" {
			d.c.fail(name, releaseStep, errors.New(why), d.now)
			continue
		}
		d.c.mend(name, releaseStep)
		claim := *d.c.members[name].reservation
		claim.Released = true
		if d.c.members[name].reservation = &claim; claim.Lost { // nobody has to delete anything
			d.c.members[name].reservation = nil
		}
	}
	for _, name := range dec.Load {
		m := d.c.members[name]
		d.say("load into %s: %s", shown(name), strings.Join(d.c.lacks(m), " "))
		m.supplying = m.instance.ID
	}
	if dec.Gone {
		d.say("gone")
		d.c = nil
		return false
	}
	return len(dec.Withdraw)+len(dec.Stop)+len(dec.Launch)+len(dec.Resize)+len(dec.Release)+len(dec.Load) > 0
}

func (d *driver) launch(m *member) {
	d.say("launch %s", shown(m.name))
	switch why := d.refuse["launch"]; {
	case why != "":
		m.problem = why
		m.failures++
		m.ended = d.now
	case !d.room || m.reservation != nil && m.reservation.Lost: // the kernel places nothing with a claim that is lost
		m.waiting = &kernel.Waiting{Key: reservationName("a", m.name),
			Refusal: kernel.Refusal{Agents: 3, Reasons: []kernel.Rejected{{Filter: "mem", Agents: 3}}}}
	default:
		m.problem, m.taken = "", false
		d.place(m)
	}
}
