package core

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// TestDecide replays transcripts: commands, and after ---- what is decided. Instances are numbered as they are
// launched and versions as they are made; a launched instance is placed while there is room.
//
//	deploy ID JSON...   a deployment of these apps; a partial update of one that exists; JSON "gone" removes it
//	room N              so many instances fit from now on
//	run|start|unchecked|sick|fail|end|away|back|stop N...   what becomes of instances; all: of all placed ones
//	scale ID N without I  kill and scale
//	time D              time passes
//	complete|incomplete agents have (not) reported
//	failover            another leader, from rows and placed instances
//	rollback|cancel D   of a deployment
//	show                where things stand
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
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		})
	}
}

func replay(t *testing.T, text string) string {
	d := newDriver()
	var out bytes.Buffer
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "%s\n", commands)
		if strings.HasPrefix(commands, "#") && !strings.Contains(commands, "\n") {
			continue
		}
		for line := range strings.SplitSeq(commands, "\n") {
			if err := d.command(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			d.settle()
		}
		fmt.Fprintf(&out, "----\n%s", d.named(d.out.String()))
		d.out.Reset()
	}
	return out.String()
}

// driver is a datacenter around a State, in one goroutine.
type driver struct {
	s        *State
	now      time.Time
	complete bool
	room     int
	placed   map[kernel.InstanceID]*kernel.Instance
	Queue    []kernel.InstanceID // in order; their specs are in wanted
	wanted   map[kernel.InstanceID]*marathon.App
	next     int
	deployed int
	versions []string
	wake     time.Time
	out      strings.Builder
}

func newDriver() *driver {
	d := &driver{s: NewState(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), complete: true, room: 1000,
		placed: map[kernel.InstanceID]*kernel.Instance{}, wanted: map[kernel.InstanceID]*marathon.App{}}
	d.s.Observe(kernel.Changes{Complete: true}, d.now)
	return d
}

// named puts v1, v2 and times from now in place of timestamps.
func (d *driver) named(s string) string {
	for i, v := range d.versions {
		s = strings.ReplaceAll(s, v, fmt.Sprint("v", i+1))
	}
	return s
}

func (d *driver) version() string {
	d.now = d.now.Add(time.Second)
	v := marathon.Timestamp(d.now)
	d.versions = append(d.versions, v)
	return v
}

func (d *driver) command(line string) error {
	f := strings.Fields(line)
	switch f[0] {
	case "#":
	case "deploy":
		return d.deploy(strings.TrimPrefix(line, "deploy "))
	case "scale":
		n, _ := strconv.Atoi(f[2])
		a := d.s.Apps[f[1]]
		v := d.version()
		b := a.Clone()
		b.Instances, b.Version, b.VersionInfo = n, v, &marathon.VersionInfo{LastScalingAt: v, LastConfigChangeAt: a.Config()}
		d.begin([]Change{{App: f[1], From: a, To: b, Victims: []kernel.InstanceID{kernel.InstanceID("i" + f[4])}}}, d.s.Apps)
	case "room":
		d.room, _ = strconv.Atoi(f[1])
		d.place()
	case "time":
		pause, err := time.ParseDuration(f[1])
		d.now = d.now.Add(pause)
		return err
	case "complete", "incomplete":
		d.complete = f[0] == "complete"
		d.s.Observe(kernel.Changes{Complete: d.complete}, d.now)
	case "failover":
		d.failover()
	case "rollback", "cancel":
		return d.undo(f[0] == "rollback", f[1])
	case "show":
		d.show()
	default:
		return d.report(f[0], f[1:])
	}
	return nil
}

func (d *driver) deploy(line string) error {
	version, root := d.version(), maps.Clone(d.s.Apps)
	changes := []Change{}
	for _, one := range strings.Split(line, " /") {
		id, text, _ := strings.Cut("/"+strings.TrimPrefix(one, "/"), " ")
		c := Change{App: id, From: d.s.Apps[id]}
		if text != `"gone"` {
			var given map[string]any
			v, err := marathon.Parse([]byte(text))
			if err != nil {
				return err
			}
			given = v.(map[string]any)
			if c.To, err = prepare(id, given, c.From, version); err != nil {
				return err
			}
			root[id] = c.To
		}
		changes = append(changes, c)
	}
	d.begin(changes, root)
	return nil
}

// prepare makes the next version of an app, as whoever writes apps does.
func prepare(id string, given map[string]any, old *marathon.App, version string) (*marathon.App, error) {
	given["id"] = id
	a, err := marathon.Read(given, old, true)
	if err != nil {
		return nil, err
	}
	a.ID, a.Version = id, version
	a.VersionInfo = &marathon.VersionInfo{LastScalingAt: version, LastConfigChangeAt: version}
	if errs := a.FoldDependencies(); len(errs) > 0 {
		return nil, marathon.ContentError(errs)
	}
	if old != nil && marathon.SameConfig(a, old) {
		a.VersionInfo.LastConfigChangeAt = old.Config()
	}
	return a, nil
}

func (d *driver) begin(changes []Change, root map[string]*marathon.App) {
	d.deployed++
	for _, c := range changes {
		if c.To == nil {
			delete(root, c.App)
		}
	}
	dep := NewDeployment(fmt.Sprint("d", d.deployed), marathon.Timestamp(d.now), changes, root, d.s.Mixed)
	d.s.Begin(dep, d.s.Conflicts(changes))
	for i, step := range dep.Steps {
		fmt.Fprintf(&d.out, "plan %s step %d: %v\n", dep.ID, i+1, step.Actions)
	}
}

func (d *driver) undo(rollback bool, id string) error {
	for _, dep := range d.s.Deployments {
		if dep.ID != id {
			continue
		}
		if !rollback {
			d.s.Cancel(dep)
			return nil
		}
		version, changes := d.version(), []Change{}
		for _, c := range dep.Changes {
			k := Change{App: c.App, From: d.s.Apps[c.App]}
			if c.From != nil {
				k.To = c.From.Clone()
				k.To.Version, k.To.VersionInfo = version, &marathon.VersionInfo{LastScalingAt: version,
					LastConfigChangeAt: c.From.Config()}
			}
			changes = append(changes, k)
		}
		d.begin(changes, d.s.Apps)
		return nil
	}
	return fmt.Errorf("no deployment %s", id)
}

func (d *driver) failover() {
	old := d.s
	d.s = NewState()
	d.Queue, d.complete = nil, false
	for id, a := range old.Apps {
		d.s.SetApp(id, a)
	}
	for _, dep := range old.Deployments {
		again := *dep // as it is read from its row
		again.Parked = ""
		d.s.Deployments = append(d.s.Deployments, &again)
	}
	c := kernel.Changes{}
	for _, i := range d.placed {
		i.Known = false
		c.Instances = append(c.Instances, i.Record())
	}
	d.s.Observe(c, d.now)
}

func (d *driver) show() {
	for _, dep := range d.s.Deployments {
		fmt.Fprintf(&d.out, "%s step %d of %d: %s\n", dep.ID, dep.Step+1, len(dep.Steps), d.s.Why(dep, nil))
	}
	for _, id := range sortedKeys(d.s.fleets) {
		for _, i := range d.s.Instances(id) {
			fmt.Fprintf(&d.out, "%s %s %s %s", id, i.ID(), i.Version, condition(i))
			for _, x := range []struct {
				is   bool
				text string
			}{{i.Waiting, "waiting"}, {i.Stopping, "stopping"}, {i.healthy(d.s.definition(id, i.Version)), "healthy"}} {
				if x.is {
					d.out.WriteString(" " + x.text)
				}
			}
			d.out.WriteString("\n")
		}
	}
}

// report says what becomes of instances.
func (d *driver) report(what string, which []string) error {
	ids := []kernel.InstanceID{}
	for _, n := range which {
		ids = append(ids, kernel.InstanceID("i"+n))
	}
	if slices.Equal(which, []string{"all"}) {
		ids = sortedIDs(d.placed)
	}
	c := kernel.Changes{Complete: d.complete}
	for _, id := range ids {
		i := d.placed[id]
		if i == nil {
			return fmt.Errorf("no instance %s", id)
		}
		st := i.Statuses[0]
		st.Health = slices.Clone(st.Health)
		i.Known = true
		switch what {
		case "run", "unchecked":
			st.State, st.Health = kernel.Running, nil
			if st.Started.IsZero() {
				d.now = d.now.Add(time.Millisecond) // so that each has an age of its own
				st.Started = d.now
			}
			for range d.wanted[id].HealthChecks {
				st.Health = append(st.Health, kernel.Health{Known: what == "run", Alive: what == "run"})
			}
		case "start":
			st.State = kernel.Starting
		case "sick":
			for k := range st.Health {
				st.Health[k] = kernel.Health{Known: true, Failures: 3, LastCause: "no answer"}
			}
		case "fail":
			st.State, st.Message, i.Removed = kernel.Failed, "exit 1", true
		case "end":
			st.State, i.Removed = kernel.Killed, true
		case "away":
			i.Away = d.now
		case "back":
			i.Away = time.Time{}
		default:
			return fmt.Errorf("unknown command %s", what)
		}
		i.Statuses = []kernel.Status{st}
		c.Instances = append(c.Instances, i.Record())
		if i.Removed {
			delete(d.placed, id)
		}
	}
	d.s.Observe(c, d.now)
	d.place()
	return nil
}

func sortedIDs[V any](m map[kernel.InstanceID]V) []kernel.InstanceID {
	out := []kernel.InstanceID{}
	for id := range m {
		out = append(out, id)
	}
	slices.SortFunc(out, func(a, b kernel.InstanceID) int {
		x, _ := strconv.Atoi(string(a[1:]))
		y, _ := strconv.Atoi(string(b[1:]))
		return x - y
	})
	return out
}

func (d *driver) place() {
	c := kernel.Changes{Complete: d.complete}
	for len(d.Queue) > 0 && len(d.placed) < d.room {
		id := d.Queue[0]
		d.Queue = d.Queue[1:]
		a := d.wanted[id]
		i := &kernel.Instance{Assignment: kernel.Assignment{ID: id, Placed: d.now, Goal: kernel.GoalRun},
			Framework: marathon.Framework, Owner: a.ID,
			Version: a.Config(), Agent: "a1", Known: true, Statuses: []kernel.Status{{Task: kernel.TaskID(id), Instance: id}}}
		d.placed[id] = i
		c.Instances = append(c.Instances, i.Record())
	}
	if len(c.Instances) > 0 {
		d.s.Observe(c, d.now)
	}
}

// settle decides until nothing is left to do, does it, and writes it down.
func (d *driver) settle() {
	for {
		dec := Decide(d.s, d.now, func(string) kernel.InstanceID {
			d.next++
			return kernel.InstanceID(fmt.Sprint("i", d.next))
		})
		if !dec.Wake.Equal(d.wake) {
			if d.wake = dec.Wake; !d.wake.IsZero() {
				fmt.Fprintf(&d.out, "wake in %v\n", dec.Wake.Sub(d.now))
			}
		}
		if dec.Empty() {
			return
		}
		d.do(dec)
	}
}

func (d *driver) do(dec Decision) {
	for _, t := range dec.Transitions {
		if t.Finished() {
			fmt.Fprintf(&d.out, "finish %s\n", t.Deployment.ID)
		} else {
			fmt.Fprintf(&d.out, "step %s to %d\n", t.Deployment.ID, t.Step+1)
		}
		d.s.Advance(t, d.now)
	}
	var out []kernel.InstanceID
	for _, w := range dec.Withdraw {
		fmt.Fprintf(&d.out, "withdraw %s %s\n", w.App, w.Instance)
		if slices.Contains(d.Queue, w.Instance) {
			out = append(out, w.Instance)
		}
		d.Queue = slices.DeleteFunc(d.Queue, func(id kernel.InstanceID) bool { return id == w.Instance })
	}
	for _, s := range append(d.s.Withdrawn(dec.Withdraw, out), dec.Stop...) {
		fmt.Fprintf(&d.out, "stop %s %s: %s\n", s.App, s.Instance, s.Why)
		if i := d.placed[s.Instance]; i != nil {
			i.Goal = kernel.GoalStop
		}
	}
	for _, r := range dec.Forget {
		fmt.Fprintf(&d.out, "forget %s %s\n", r.App, r.Instance)
		i := d.placed[r.Instance]
		delete(d.placed, r.Instance)
		i.Removed, i.Statuses = true, []kernel.Status{{State: kernel.Gone}}
		d.s.Observe(kernel.Changes{Complete: d.complete, Instances: []*kernel.Record{i.Record()}}, d.now)
	}
	for _, l := range dec.Launch {
		fmt.Fprintf(&d.out, "launch %s %s: %v\n", l.App.ID, l.App.Config(), l.Groups)
		for _, id := range l.Groups {
			d.wanted[id] = l.App
			d.Queue = append(d.Queue, id)
		}
	}
	d.place()
}
