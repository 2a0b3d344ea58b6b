package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/services/core"
	"pgregory.net/rapid"
)

// TestServicesHoldTheirBounds drives the API and the kernel at random and checks after every step what must always
// hold; at the end faults stop and everything must come to what was asked for.
func TestServicesHoldTheirBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := &machine{world: newWorld(rt.Fatalf), rt: rt, tolerated: map[string]int{}}
			m.policy = core.DefaultPolicy
			m.policy.BrakeFloor = 1000 // the brake has tests of its own
			for i := range 3 {
				m.kernel.AddAgent(kernel.AgentID(fmt.Sprint("a", i)), 6)
			}
			m.lead()
			defer func() {
				m.cancel()
				<-m.done
			}()
			rt.Repeat(map[string]func(*rapid.T){
				"create": m.create, "scale": m.scale, "change": m.change, "restart": m.restart, "remove": m.remove, "undo": m.undo,
				"kill": m.kill, "progress": m.progress, "fail": m.failOne, "sicken": m.sicken, "lose": m.lose, "return": m.back,
				"failover": func(*rapid.T) { m.failover() }, "wait": m.wait, "": func(*rapid.T) { m.check() },
			})
			m.heal()
		})
	})
}

// machine is the model: it knows which bounds hold for which app at the moment.
type machine struct {
	*world
	rt        *rapid.T
	lost      []kernel.AgentID
	tolerated map[string]int             // instances of an app above its bound that were there when the bound fell
	bounds    map[string]int             // as of the last check
	lives     map[string]int             // likewise
	before    map[kernel.InstanceID]bool // healthy before the step
}

var appNames = rapid.SampledFrom([]string{"/a", "/b", "/g/c"})

func (m *machine) ask(method, path, body string) {
	rec := m.call(method, path, body)
	if rec.Code >= 500 {
		m.rt.Fatalf("%s %s %s: got %d %s", method, path, body, rec.Code, rec.Body)
	}
}

func (m *machine) strategy(t *rapid.T) string {
	return rapid.SampledFrom([]string{`{"minimumHealthCapacity":1,"maximumOverCapacity":1}`,
		`{"minimumHealthCapacity":0.5,"maximumOverCapacity":0}`,
		`{"minimumHealthCapacity":1,"maximumOverCapacity":0}`, `{"minimumHealthCapacity":0,"maximumOverCapacity":0}`,
		`{"minimumHealthCapacity":0.7,"maximumOverCapacity":0.2}`}).Draw(t, "strategy")
}

func force(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "?force=true"}).Draw(t, "force")
}

func (m *machine) create(t *rapid.T) {
	m.ask("POST", "/v2/apps", fmt.Sprintf(`{"id":%q,"cmd":"x","instances":%d,"upgradeStrategy":%s,"healthChecks":[{}]}`,
		appNames.Draw(t, "app"), rapid.IntRange(0, 4).Draw(t, "n"), m.strategy(t)))
}

func (m *machine) scale(t *rapid.T) {
	m.ask("PATCH", "/v2/apps"+appNames.Draw(t, "app")+force(t), fmt.Sprintf(`{"instances":%d}`, rapid.IntRange(0,
		4).Draw(t, "n")))
}

func (m *machine) change(t *rapid.T) {
	m.ask("PATCH", "/v2/apps"+appNames.Draw(t, "app")+force(t),
		fmt.Sprintf(`{"cmd":"x%d","instances":%d,"upgradeStrategy":%s}`,
			rapid.IntRange(0, 3).Draw(t, "cmd"), rapid.IntRange(0, 4).Draw(t, "n"), m.strategy(t)))
}

func (m *machine) restart(t *rapid.T) {
	m.ask("POST", "/v2/apps"+appNames.Draw(t, "app")+"/restart"+force(t), "{}")
}

func (m *machine) remove(t *rapid.T) {
	m.ask("DELETE", "/v2/apps"+appNames.Draw(t, "app")+"?force=true", "")
}

func (m *machine) undo(t *rapid.T) {
	d := m.deployments()
	if len(d) == 0 {
		t.Skip("no deployment")
	}
	m.ask("DELETE", "/v2/deployments/"+d[rapid.IntRange(0, len(d)-1).Draw(t, "deployment")].ID+force(t), "")
}

func (m *machine) pick(t *rapid.T, keep func(*kernel.Instance) bool) kernel.Instance {
	list := []kernel.Instance{}
	for _, i := range m.kernel.Instances() {
		if i.Away.IsZero() && keep(&i) {
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		t.Skip("no such instance")
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(t, "instance")]
}

func (m *machine) kill(t *rapid.T) {
	i := m.pick(t, func(i *kernel.Instance) bool { return true })
	m.ask("POST", "/v2/tasks/delete?scale="+rapid.SampledFrom([]string{"true", "false"}).Draw(t, "scale"),
		fmt.Sprintf(`{"ids":[%q]}`, string(i.ID)+marathon.TaskSuffix))
	m.before = nil // what a request kills is its own doing
}

func (m *machine) progress(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "steps") {
		if !m.nudgeReachable() {
			return
		}
		m.check()
	}
}

func (m *machine) nudgeReachable() bool {
	for _, i := range m.kernel.Instances() {
		switch {
		case !i.Away.IsZero():
			continue
		case i.Goal == kernel.GoalStop:
			m.kernel.End(i.ID, kernel.Killed, "")
		case i.State() < kernel.Running || !i.Healthy():
			m.kernel.Run(i.ID)
		default:
			continue
		}
		synctest.Wait()
		return true
	}
	return false
}

func (m *machine) failOne(t *rapid.T) {
	i := m.pick(t, func(i *kernel.Instance) bool { return i.Goal == kernel.GoalRun })
	delete(m.before, i.ID)
	m.kernel.End(i.ID, rapid.SampledFrom([]kernel.State{kernel.Failed, kernel.Finished, kernel.Lost}).Draw(t, "state"),
		"fault")
	synctest.Wait()
}

func (m *machine) sicken(t *rapid.T) {
	i := m.pick(t, func(i *kernel.Instance) bool { return i.State() == kernel.Running })
	delete(m.before, i.ID)
	m.kernel.Sicken(i.ID)
	synctest.Wait()
}

func (m *machine) lose(t *rapid.T) {
	id := kernel.AgentID(rapid.SampledFrom([]string{"a0", "a1", "a2"}).Draw(t, "agent"))
	for _, l := range m.lost {
		if l == id {
			t.Skip("lost already")
		}
	}
	m.lost = append(m.lost, id)
	for _, i := range m.kernel.Instances() {
		if i.Agent == id {
			delete(m.before, i.ID)
		}
	}
	m.kernel.Lose(id)
	synctest.Wait()
}

func (m *machine) back(t *rapid.T) {
	if len(m.lost) == 0 {
		t.Skip("none is lost")
	}
	before := map[string]int{}
	for id := range m.bound() {
		before[id] = m.live(id)
	}
	m.kernel.Return(m.lost[0])
	m.lost = m.lost[1:]
	synctest.Wait()
	for id := range before { // what returns may be too much until it is stopped
		m.tolerated[id] = max(m.tolerated[id], m.live(id))
	}
}

func (m *machine) wait(t *rapid.T) {
	m.after(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
}

// rounding keeps 0.07*100 from counting as more than 7.
const rounding = 1e-9

// bounds are the least healthy and the most living instances while n are being replaced, as the essay promises them.
func bounds(n int, u marathon.UpgradeStrategy) (least, most int) {
	least = int(math.Ceil(float64(n)*u.MinimumHealthCapacity - rounding))
	most = int(math.Floor(float64(n)*(1+u.MaximumOverCapacity) + rounding))
	if least == most {
		most++
	}
	return least, most
}

// bound is how many instances each app may have by what is known of it: the most over its versions in play.
func (m *machine) bound() map[string]int {
	out := map[string]int{}
	most := func(a *marathon.App) {
		if a != nil {
			_, b := bounds(a.Instances, a.UpgradeStrategy)
			out[a.ID] = max(out[a.ID], b,
				int(math.Ceil(float64(a.Instances)*(1+a.UpgradeStrategy.MaximumOverCapacity)-rounding)))
		}
	}
	for _, a := range m.apps() {
		most(a)
	}
	for _, d := range m.running() {
		for _, c := range d.Changes {
			most(c.From)
		}
	}
	return out
}

// live counts an app's instances on machines that answer.
func (m *machine) live(app string) (n int) {
	for _, i := range m.kernel.Instances() {
		if i.Owner == app && i.Away.IsZero() {
			n++
		}
	}
	return n
}

// check holds after every step.
func (m *machine) check() {
	bound := m.bound()
	count := map[string]int{}
	for _, i := range m.kernel.Instances() {
		if i.Away.IsZero() {
			count[i.Owner]++
		}
	}
	for id, b := range m.bounds {
		if bound[id] < b {
			m.tolerated[id] = max(m.tolerated[id], m.lives[id])
		}
	}
	m.bounds, m.lives = bound, count
	for id, n := range count {
		if n <= bound[id] {
			m.tolerated[id] = 0
		}
		if n > max(bound[id], m.tolerated[id]) {
			m.rt.Fatalf("%s has %d instances, its bound is %d (%d tolerated)", id, n, bound[id], m.tolerated[id])
		}
	}
	m.checkHealthy()
	m.checkPorts()
	away := 0
	for _, i := range m.kernel.Instances() {
		if !i.Away.IsZero() {
			away++
		}
	}
	if m.away() != away {
		m.rt.Fatalf("instances away: counted %d, there are %d", m.away(), away)
	}
	for _, d := range m.deployments() {
		if d.Reason == "" {
			m.rt.Fatalf("deployment %s waits and does not say why", d.ID)
		}
		apps := map[string]bool{}
		for _, a := range d.AffectedApps {
			if apps[a] {
				m.rt.Fatalf("app %s is in two deployments", a)
			}
			apps[a] = true
		}
	}
}

// checkHealthy finds instances that were healthy before the step, and that are now being stopped although fewer than
// the least are left healthy.
func (m *machine) checkHealthy() {
	left, taken := map[string]int{}, map[string]int{}
	now := map[kernel.InstanceID]bool{}
	for _, i := range m.kernel.Instances() {
		healthy := i.Healthy() && i.Away.IsZero()
		switch {
		case healthy && i.Goal == kernel.GoalRun:
			now[i.ID] = true
			left[i.Owner]++
		case m.before[i.ID] && i.Goal == kernel.GoalStop:
			taken[i.Owner]++
		}
	}
	m.before = now
	for id, n := range taken {
		a := m.apps()[id]
		if a == nil {
			continue
		}
		least, _ := bounds(a.Instances, a.UpgradeStrategy)
		if left[id] < least {
			m.rt.Fatalf("%s: %d healthy instances were stopped, %d are left of at least %d", id, n, left[id], least)
		}
	}
}

func (m *machine) checkPorts() {
	seen := map[int]string{}
	for id, a := range m.apps() {
		for _, p := range a.ServicePorts() {
			if other := seen[p]; other != "" || p < 10000 || p > 20000 {
				m.rt.Fatalf("service port %d of %s is also of %q, or out of range", p, id, other)
			}
			seen[p] = id
		}
	}
}

// heal ends all faults and expects that everything is as asked.
func (m *machine) heal() {
	for _, id := range m.lost {
		m.kernel.Return(id)
	}
	m.kernel.Auto(true)
	for range 20 {
		for _, i := range m.kernel.Instances() {
			if !i.Healthy() && i.State() == kernel.Running {
				m.kernel.Run(i.ID)
			}
		}
		m.after(10 * time.Minute)
	}
	if d := m.deployments(); len(d) > 0 {
		m.rt.Fatalf("deployments that never end: %s", must(json.Marshal(d)))
	}
	count := map[string]int{}
	for _, i := range m.kernel.Instances() {
		count[i.Owner]++
	}
	for id, a := range m.apps() {
		if count[id] != a.Instances {
			m.rt.Fatalf("%s: got %d instances, want %d", id, count[id], a.Instances)
		}
		delete(count, id)
	}
	if len(count) > 0 {
		m.rt.Fatalf("instances that nobody wants: %v", count)
	}
	if q := m.kernel.Queue(marathon.Framework); len(q) > 0 {
		m.rt.Fatalf("still waiting: %v", q)
	}
}

// FuzzApp feeds anything to POST /v2/apps: no panic, no 5xx, and what is accepted reads back as itself.
func FuzzApp(f *testing.F) {
	for _, seed := range []string{
		`{"id":"/a","cmd":"x"}`, `{"id":"a/b","args":["x"],"instances":3,"cpus":0.1,"mem":1e2}`,
		`{"id":"/a","container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}}}`,
		`{"id":"/a","cmd":"x","healthChecks":[{"protocol":"COMMAND","command":{"value":"y"}},{"protocol":"TCP","port":80}]}`,
		`{"id":"/a","cmd":"x","env":{"A":{"secret":"b"}},"labels":{"\u0000":"x"}}`,
		`{"id":"/a","cmd":"x","constraints":[["a","LIKE","("],[],["a","GROUP_BY","x"]]}`,
		`{"id":"/a","cmd":"x","unreachableStrategy":"disabled","resourceLimits":{"cpus":"unlimited"}}`,
		`{"id":"/../..","cmd":"x"}`,
		`{"id":"/a","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":1e-300,"maximumOverCapacity":-0}}`, `[[[[`,
		`{"id":"/a","id":"/b"}`, `nul`,
		`{"id":"/a","cmd":"x","portDefinitions":[{"port":0,"name":"a","labels":{"VIP_0":":"}}],"ports":[0,1]}`,
		`{"id":"/a","cmd":"x","networks":[{"mode":"container/bridge"}],"portDefinitions":[]}`,
		`{"id":"/a","cmd":"x","cpus":1e308,"disk":0.0000001}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := marathon.Parse(body)
		if err != nil {
			return
		}
		given, ok := v.(map[string]any)
		if !ok {
			return
		}
		text, _ := given["id"].(string)
		id, errs := marathon.AppID(text, "/")
		if len(errs) > 0 {
			return
		}
		tx := New(Config{}).begin(&scheduler.Change{})
		a, err := tx.create(id, given)
		if err != nil {
			if _, said := errors.AsType[*marathon.InvalidError](err); !said {
				t.Fatalf("got %v, want a refusal in Marathon's words", err)
			}
			return
		}
		if len(marathon.GroupPrefix(a.ID))+36+len(marathon.TaskSuffix) > 255 {
			t.Fatalf("task ids of %s are too long", a.ID)
		}
		out := must(json.Marshal(a))
		again := must(marathon.Parse(out)).(map[string]any)
		delete(again, "version")
		delete(again, "versionInfo")
		b, err := New(Config{}).begin(&scheduler.Change{}).create(id, again)
		if err != nil {
			t.Fatalf("%s is accepted and comes back as %s, which is not: %v", body, out, err)
		}
		if !marathon.SameConfig(a, b) || a.Instances != b.Instances {
			t.Fatalf("%s comes back as\n%s\nand then as\n%s", body, out, must(json.Marshal(b)))
		}
		var read marathon.App
		if err := json.Unmarshal(out, &read); err != nil || !strings.HasPrefix(read.ID, "/") {
			t.Fatalf("%s does not read back: %v", out, err)
		}
	})
}
