package core

import (
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
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/store"
)

var update = flag.Bool("update", false, "rewrite testdata with what happens now")

// TestTranscripts plays testdata/*.txt: a command, "----", what it made happen, an empty line. Lines with # are
// comments.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %d found, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(raw))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(raw), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("transcript (-want +got), -update rewrites it:\n%s", diff)
			}
		})
	}
}

func play(t *testing.T, raw string) string {
	p := newPlayer(t)
	var out strings.Builder
	lines := strings.Split(raw, "\n")
	for n := 0; n < len(lines); n++ {
		line := lines[n]
		out.WriteString(line)
		if n < len(lines)-1 {
			out.WriteByte('\n')
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if n+1 < len(lines) && lines[n+1] == "----" { // skip what was recorded
			for n++; n < len(lines) && lines[n] != ""; n++ {
			}
			n--
		}
		fmt.Fprintf(&out, "----\n%s", p.do(strings.Fields(line)))
	}
	return out.String()
}

// player is one leader after the other over the rows that are durable.
type player struct {
	t     *testing.T
	cfg   Config
	state *State
	rows  map[string][]byte
	zero  time.Time
	now   time.Time
	wake  time.Time
	up    map[event.SessionID]uint64 // frames sent
	req   event.RequestID
}

func newPlayer(t *testing.T) *player {
	zero := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	p := &player{t: t, cfg: Config{Epoch: 1}, rows: map[string][]byte{}, zero: zero, now: zero,
		up: map[event.SessionID]uint64{}}
	p.state = NewState(p.cfg)
	return p
}

// args are the words after the verb: "key=value", or plain.
type args struct {
	t     *testing.T
	words []string
}

func (a args) get(key, otherwise string) string {
	for _, w := range a.words {
		if v, ok := strings.CutPrefix(w, key+"="); ok {
			return v
		}
	}
	return otherwise
}

func (a args) num(key string, otherwise int) int {
	n, err := strconv.Atoi(a.get(key, strconv.Itoa(otherwise)))
	if err != nil {
		a.t.Fatalf("%v: %s: %v", a.words, key, err)
	}
	return n
}

func (a args) list(key string) []string {
	if v := a.get(key, ""); v != "" {
		return strings.Split(v, ",")
	}
	return nil
}

func (a args) groups() []kernel.InstanceID {
	var out []kernel.InstanceID
	for _, g := range a.list("groups") {
		out = append(out, kernel.InstanceID(g))
	}
	return out
}

func (p *player) do(words []string) string {
	a := args{p.t, words[1:]}
	ticks := ""
	if after := a.get("after", ""); after != "" {
		d, err := time.ParseDuration(after)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks = p.pass(d)
	}
	p.req++
	switch words[0] {
	case "config":
		p.cfg.ForgetPercent, p.cfg.SubnetBits = a.num("forget", 0), a.num("subnets", 0)
		if pool := a.get("pool", ""); pool != "" {
			p.cfg.Pool = netip.MustParsePrefix(pool)
		}
		p.cfg.BackfillAfter, p.cfg.BackfillFor = time.Duration(a.num("hold", 0))*time.Second, time.Duration(a.num("for",
			0))*time.Second
		p.state = NewState(p.cfg)
		return ""
	case "pause": // nothing runs for a while
		d, err := time.ParseDuration(a.words[0])
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = p.now.Add(d)
		return ""
	case "leader":
		return ticks + p.lead()
	case "break":
		p.rows[a.words[0]] = []byte("{")
		return ""
	case "show":
		return p.show(a.words[0])
	}
	return ticks + p.step(p.event(words[0], a))
}

// pass lets time pass, with the ticks that come due.
func (p *player) pass(d time.Duration) string {
	var out strings.Builder
	end := p.now.Add(d)
	for !p.wake.IsZero() && p.wake.Before(end) {
		p.now = p.wake
		fmt.Fprintf(&out, "tick +%v\n%s", p.now.Sub(p.zero), p.step(event.Tick{}))
	}
	p.now = end
	return out.String()
}

func (p *player) event(verb string, a args) event.Event {
	session := event.SessionID(a.num("session", 0))
	framework := a.get("framework", "marathon")
	switch verb {
	case "up":
		p.up[session] = 1
		return event.AgentUp{Session: session, Seq: 1, Registration: p.registration(a)}
	case "frame":
		p.up[session] += uint64(a.num("skip", 1))
		return event.Frame{Session: session, Up: kernel.Up{Seq: p.up[session], Statuses: p.statuses(a),
			Applied: uint64(a.num("applied", 0))}}
	case "down":
		return event.AgentDown{Session: session, Why: "connection reset"}
	case "launch":
		return event.Launch{Request: p.req, LaunchRequest: kernel.LaunchRequest{Key: a.get("key", "/app@1"), Spec: p.spec(a),
			Instances: a.groups()}}
	case "withdraw":
		return event.Withdraw{Request: p.req, Framework: framework, Key: a.get("key", "/app@1"), Instances: a.groups()}
	case "stop":
		return event.Stop{Request: p.req, Framework: framework, Instances: a.groups(), Why: "scaled down"}
	case "forget":
		return event.Forget{Request: p.req, Framework: framework, Instances: a.groups()}
	case "quota":
		q := kernel.Quota{Role: a.get("role", "/"), Guarantee: kernel.Resources{MilliCPU: int64(a.num("guarantee", 0))},
			Limit:  kernel.NoLimit,
			Weight: float64(a.num("weight", 0))}
		q.Limit.MilliCPU = int64(a.num("cpus", kernel.Unlimited))
		return event.SetQuota{Request: p.req, Quota: q, Remove: a.get("cpus", "")+a.get("guarantee", "")+a.get("weight",
			"") == "", Force: a.get("force", "") != ""}
	case "reserve":
		return event.Reserve{Request: p.req, Agent: kernel.AgentID(a.get("agent", "a1")),
			ReservedPart: kernel.ReservedPart{Role: a.get("role", "/"),
				Amount: kernel.Resources{MilliCPU: int64(a.num("cpus", 0))}}}
	case "remove":
		return event.RemoveAgent{Request: p.req, Agent: kernel.AgentID(a.get("agent", "a1")), Force: a.get("force", "") != ""}
	case "pool":
		return event.SetPool{Request: p.req, Pool: netip.MustParsePrefix(a.get("prefix", ""))}
	case "released":
		p.up[session]++
		return event.Frame{Session: session, Up: kernel.Up{Seq: p.up[session], Released: a.list("claims")}}
	case "release":
		return event.Release{Request: p.req, Framework: framework, Reservations: a.list("claims")}
	case "resize":
		return event.Resize{Request: p.req, Framework: framework, Instance: kernel.InstanceID(a.get("group", "")),
			Sizes: []kernel.Size{{Guarantee: kernel.Resources{MilliCPU: int64(a.num("cpus", 1000)), Mem: kernel.GiB}}}}
	case "expose":
		ev := event.Expose{Request: p.req, Framework: framework, Owner: a.get("owner", "/app")}
		for _, port := range a.list("ports") {
			name, number, _ := strings.Cut(port, ":")
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				p.t.Fatal(err)
			}
			ev.Ports = append(ev.Ports, kernel.Port{Name: name, Protocol: "tcp", Container: 30000 + uint16(n),
				Service: uint16(n), Publish: true,
				VIPs: []kernel.VIP{{Name: name, Port: uint16(n)}}})
		}
		return ev
	case "tick":
		return event.Tick{}
	}
	p.t.Fatalf("unknown command %q", verb)
	return nil
}

func (p *player) registration(a args) kernel.Registration {
	id := a.get("agent", "a1")
	attributes := map[string]string{}
	for _, kv := range a.list("attributes") {
		k, v, _ := strings.Cut(kv, ":")
		attributes[k] = v
	}
	return kernel.Registration{Agent: kernel.Agent{ID: kernel.AgentID(id), Hostname: "host-" + id,
		Address:    netip.MustParseAddr(a.get("address", "192.0.2.1")),
		Attributes: attributes, Total: kernel.Resources{MilliCPU: int64(a.num("cpus", 4000)), Mem: 8 * kernel.GiB,
			Disk: 100 * kernel.GiB},
		Ports: kernel.PortRange{First: 31000, Last: 31003}}, Incarnation: a.get("incarnation", "i1"), Boot: "b1",
		Epoch: int64(a.num("epoch", 0)), Endpoints: uint64(a.num("endpoints", 0)), Statuses: p.statuses(a)}
}

// statuses reads "g1:running:1:healthy", "g2._side:killed:4": group or task, state, seq, health of one check.
func (p *player) statuses(a args) []kernel.Status {
	var out []kernel.Status
	for _, w := range a.list("statuses") {
		f := strings.Split(w, ":")
		group, suffix, two := strings.Cut(f[0], ".")
		if !two {
			suffix = "_app"
		}
		seq, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		st := kernel.Status{Task: kernel.TaskID(group + "." + suffix), Instance: kernel.InstanceID(group), Seq: seq,
			Time: p.now}
		if err := st.State.UnmarshalText([]byte("TASK_" + strings.ToUpper(f[1]))); err != nil {
			p.t.Fatal(err)
		}
		if len(f) > 3 {
			st.Health = []kernel.Health{{Known: true, Alive: f[3] == "healthy"}}
		}
		out = append(out, st)
	}
	return out
}

func (p *player) spec(a args) kernel.Spec {
	sp := kernel.Spec{Framework: a.get("framework", "marathon"), Owner: a.get("owner", "/app"),
		Version: a.get("version", "1"),
		Role:    a.get("role", "/"), Priority: a.num("priority", 0), Reserved: kernel.Reserved(a.get("reserved",
			"")), Discovery: "app", Network: kernel.Network{Mode: kernel.NetworkMode(a.get("mode", "bridge"))}}
	tasks := []string{"_app"}
	if a.get("sidecar", "") != "" {
		tasks = append(tasks, "_side")
	}
	for _, name := range tasks {
		task := kernel.TaskSpec{Name: name, Suffix: "." + name, Image: "image",
			Guarantee: kernel.Resources{MilliCPU: int64(a.num("cpus", 1000)), Mem: kernel.GiB}}
		if v := a.get("vip", ""); v != "" {
			task.Ports = append(task.Ports, kernel.Port{Name: "web", Protocol: "udp,tcp", Container: 8080,
				VIPs: []kernel.VIP{{Name: v, Port: 80}}})
		}
		if v := a.get("literal", ""); v != "" {
			task.Ports = append(task.Ports, kernel.Port{Protocol: "tcp", Container: 8081,
				VIPs: []kernel.VIP{{Addr: netip.MustParseAddr(v), Port: 80}}})
		}
		for _, port := range a.list("ports") {
			n, err := strconv.Atoi(port)
			if err != nil {
				p.t.Fatal(err)
			}
			if n > 0 && name == "_side" { // tasks of an instance share the machine: each has ports of its own
				n++
			}
			task.Ports = append(task.Ports, kernel.Port{Protocol: "tcp", Container: 9090, Host: n})
		}
		sp.Tasks = append(sp.Tasks, task)
	}
	if v := a.get("claim", ""); v != "" {
		sp.Reservation = &kernel.Reservation{Name: v, Volumes: []kernel.ReservedVolume{{Name: "data",
			Bytes: int64(a.num("disk", 1)) * kernel.GiB}}}
	}
	if v := a.get("bundle", ""); v != "" {
		sp.Tasks[0].Bundles = []string{v}
	}
	for _, c := range a.list("constraints") {
		f := append(strings.Split(c, ":"), "")
		sp.Constraints = append(sp.Constraints, kernel.Constraint{Field: f[0], Operator: f[1], Value: f[2]})
	}
	sealed, err := sp.Seal()
	if err != nil {
		p.t.Fatal(err)
	}
	return sealed
}

// lead drops the state, as a leader that lost its leadership does, and has the next one load what is durable.
func (p *player) lead() string {
	p.cfg.Epoch++
	p.state = NewState(p.cfg)
	keys := make([]string, 0, len(p.rows))
	for k := range p.rows {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var items []store.Item
	for _, k := range keys {
		items = append(items, store.Item{Key: k, Value: p.rows[k]})
	}
	var out strings.Builder
	for _, err := range p.state.Load(items) {
		fmt.Fprintf(&out, "problem: %v\n", err)
	}
	return out.String() + p.step(event.Tick{})
}

func (p *player) step(ev event.Event) string {
	fx := p.state.Step(p.now, ev)
	p.wake = fx.Wake
	ops, err := p.state.Ops(fx.Writes)
	if err != nil {
		p.t.Fatal(err)
	}
	var out strings.Builder
	names := p.specNames()
	for _, op := range ops {
		if op.Kind == store.OpDelete {
			delete(p.rows, op.Key)
			fmt.Fprintf(&out, "delete %s\n", names.Replace(op.Key))
			continue
		}
		p.rows[op.Key] = op.Value
		fmt.Fprintf(&out, "put %s%s\n", names.Replace(op.Key), rowText(op))
	}
	for _, s := range fx.Sends {
		fmt.Fprintf(&out, "send %d: %s\n", s.Session, downText(s.Down))
	}
	for _, e := range fx.Ends {
		fmt.Fprintf(&out, "end %d: %s\n", e.Session, e.Why)
	}
	for _, r := range fx.Replies {
		fmt.Fprintf(&out, "reply: %s\n", replyText(r))
	}
	for _, i := range fx.Changes {
		fmt.Fprintf(&out, "change: %s\n", instanceText(new(i.Instance())))
	}
	if fx.Room {
		out.WriteString("room\n")
	}
	if !fx.Complete {
		out.WriteString("incomplete\n")
	}
	if !fx.Wake.IsZero() {
		fmt.Fprintf(&out, "wake +%v\n", fx.Wake.Sub(p.now))
	}
	return out.String()
}

func (p *player) show(what string) string {
	var out strings.Builder
	switch what {
	case "queue":
		for _, w := range p.state.Queue("marathon") {
			fmt.Fprintf(&out, "%s waits for %v since +%v, tries %d: %v: %s\n", w.Key, p.now.Sub(w.Since), w.Since.Sub(p.zero),
				w.Tries, w.Instances, w.Refusal)
		}
	case "agents":
		for _, a := range p.state.Agents() {
			fmt.Fprintf(&out, "%s %s connected=%v away=%v groups=%d used=%s %v\n", a.ID, a.Subnet, a.Connected,
				!a.Away.IsZero(), a.Instances, a.Used, a.Warnings)
		}
	case "instances":
		for _, i := range p.state.Instances("") {
			fmt.Fprintln(&out, instanceText(new(i.Instance())))
		}
	case "claims":
		for _, c := range p.state.Reservations("marathon") {
			fmt.Fprintf(&out, "%s on %s %s %v disk=%s released=%v", c.Name, c.Agent, c.Address, c.HostPorts,
				kernel.FormatBytes(c.Disk()), c.Released)
			if c.Lost {
				out.WriteString(" lost")
			}
			out.WriteString("\n")
		}
	case "machines":
		for _, m := range p.state.Agents() {
			fmt.Fprintf(&out, "%s used=%v free=%v reserved=%v\n", m.ID, m.Used, m.Free, m.Reserved)
		}
	case "quotas":
		for _, q := range p.state.Quotas() {
			fmt.Fprintf(&out, "%s limit=%v used=%s", q.Role, q.Limit, q.Used)
			if q.Guarantee != nil {
				fmt.Fprintf(&out, " guarantee=%v", q.Guarantee)
			}
			if !q.Held.IsZero() {
				fmt.Fprintf(&out, " held=%v", q.Held)
			}
			if !q.Preemptible.IsZero() {
				fmt.Fprintf(&out, " lent=%v", q.Preemptible)
			}
			if q.Waiting > 0 {
				fmt.Fprintf(&out, " waiting=%d asks=%v why=%q", q.Waiting, q.Asks, q.Why)
			}
			fmt.Fprintln(&out)
		}
	}
	return out.String()
}

// specNames shortens the ids of specs.
func (p *player) specNames() *strings.Replacer {
	var pairs []string
	for key := range p.rows {
		if id, ok := strings.CutPrefix(key, "kernel/specs/"); ok {
			pairs = append(pairs, id, id[:4])
		}
	}
	for sp := range p.state.specs.All {
		pairs = append(pairs, string(sp.ID), string(sp.ID)[:4])
	}
	return strings.NewReplacer(pairs...)
}

func rowText(op store.Op) string {
	r, _ := row.Parse(op.Key)
	switch r.Kind {
	case row.Assigned:
		groups, _ := kernel.UnpackAssignments(op.Value)
		return " " + groupsText(groups)
	case row.Spec, row.Agent:
		return ""
	}
	return " " + string(op.Value)
}

func groupsText(groups []kernel.Assignment) string {
	var out []string
	for _, g := range groups {
		s := string(g.ID) + ":" + string(g.Goal)
		if g.Address.IsValid() {
			s += "@" + g.Address.String()
		}
		if g.HostPorts != nil {
			s += fmt.Sprint(g.HostPorts)
		}
		for _, size := range g.Sizes {
			s += fmt.Sprintf("(%s)", size.Guarantee)
		}
		out = append(out, s)
	}
	return "[" + strings.Join(out, " ") + "]"
}

func downText(d kernel.Down) string {
	s := fmt.Sprintf("%d/%d", d.Epoch, d.Seq)
	if d.Sync {
		s += " sync " + d.Subnet.String()
	}
	if d.Removed != "" {
		s += " removed: " + d.Removed
	}
	if d.Specs != nil {
		s += fmt.Sprintf(" specs=%d", len(d.Specs))
	}
	if d.Assignments != nil {
		s += " groups=" + groupsText(d.Assignments)
	}
	if d.Drop != nil {
		s += fmt.Sprintf(" drop=%v", d.Drop)
	}
	if d.Release != nil {
		s += fmt.Sprintf(" release=%v", d.Release)
	}
	for _, a := range d.Acks {
		s += fmt.Sprintf(" ack=%s:%d", a.Task, a.Seq)
	}
	if e := d.Endpoints; e != nil {
		s += fmt.Sprintf(" endpoints %d->%d", e.From, e.To)
		if e.Full {
			s += " full"
		}
		for _, e := range e.Set {
			s += " " + endpointText(e)
		}
		if e.Remove != nil {
			s += fmt.Sprintf(" remove=%v", e.Remove)
		}
	}
	return s
}

func endpointText(e kernel.Endpoint) string {
	s := string(e.Task)
	if e.Ready {
		s += "(ready)"
	}
	for _, p := range e.Ports {
		s += fmt.Sprintf("[%s %d", p.Protocol, p.Container)
		if p.Host != 0 {
			s += fmt.Sprintf(" host %d", p.Host)
		}
		for _, v := range p.VIPs {
			s += fmt.Sprintf(" %s=%s:%d", v.Name, v.Addr, v.Port)
		}
		s += "]"
	}
	return s
}

func replyText(r Reply) string {
	if r.Err != nil {
		return r.Err.Error()
	}
	for _, e := range r.Exposed {
		return fmt.Sprintf("exposed %d at %s:%d", e.Container, e.VIPs[0].Addr, e.VIPs[0].Port)
	}
	if r.Removal != nil {
		s := fmt.Sprintf("removed %s with %v", r.Removal.Hostname, r.Removal.Instances)
		for _, c := range r.Removal.Lost {
			s += " lost " + c.Name
		}
		return s
	}
	if r.Launch == nil {
		return "done"
	}
	s := "placed"
	for _, i := range r.Launch.Placed {
		s += fmt.Sprintf(" %s@%s", i.ID(), i.Agent)
	}
	if r.Launch.Refusal != nil {
		s += fmt.Sprintf(", %d wait: %s", r.Launch.Waiting, r.Launch.Refusal)
	}
	return s
}

func instanceText(i *kernel.Instance) string {
	s := fmt.Sprintf("%s on %s %s", i.ID, i.Agent, i.State())
	if i.Goal != kernel.GoalRun {
		s += " goal=" + string(i.Goal)
	}
	if !i.Healthy() && i.State() == kernel.Running {
		s += " unhealthy"
	}
	if !i.Known {
		s += " unknown"
	}
	if !i.Away.IsZero() {
		s += " away"
	}
	if i.Removed {
		s += " removed"
	}
	return s
}
