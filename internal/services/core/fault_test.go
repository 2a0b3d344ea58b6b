package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// after runs commands and settles after each.
func after(t *testing.T, commands ...string) *driver {
	t.Helper()
	d := newDriver()
	for _, line := range commands {
		if err := d.command(line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		d.settle()
	}
	return d
}

// decide takes the steps that are done and returns what follows, which nobody carries out. Instances get ids that no
// driver gives.
func (d *driver) decide() Decision {
	for {
		dec := Decide(d.s, d.now, func(string) kernel.InstanceID {
			d.next++
			return kernel.InstanceID(fmt.Sprint("x", d.next))
		})
		if len(dec.Transitions) == 0 {
			return dec
		}
		for _, t := range dec.Transitions {
			d.s.Advance(t, d.now)
		}
	}
}

func TestARefusedLaunchIsTakenBackAndTriedAgainAfterAPause(t *testing.T) {
	d := newDriver()
	if err := d.command(`deploy /web {"cmd":"x","instances":3,"backoffSeconds":2,"backoffFactor":2}`); err != nil {
		t.Fatal(err)
	}
	pause := 2 * time.Second
	for try := range 3 {
		asked := d.decide()
		if len(asked.Launch) != 1 || len(asked.Launch[0].Groups) != 3 {
			t.Fatalf("try %d: got launches %+v, want one of 3", try, asked.Launch)
		}
		d.s.LaunchFailed(asked.Launch[0], "no such role", d.now)
		if left := d.s.Instances("/web"); len(left) != 0 {
			t.Errorf("try %d: got %d instances left of a refused launch, want none", try, len(left))
		}
		waits := d.decide()
		if len(waits.Launch) != 0 || waits.Wake.Sub(d.now) != pause {
			t.Errorf("try %d: got launches %v and a pause of %v, want none and %v",
				try, waits.Launch, waits.Wake.Sub(d.now), pause)
		}
		if why := d.s.Why(d.s.Deployments[0], nil); !strings.Contains(why, "no such role") {
			t.Errorf("try %d: the deployment says %q, want the refusal in it", try, why)
		}
		d.now = d.now.Add(pause)
		pause *= 2
	}
}

func TestARefusedForgetIsTriedAgainAfterAPause(t *testing.T) {
	d := after(t, `deploy /web {"cmd":"x","unreachableStrategy":{"inactiveAfterSeconds":1,"expungeAfterSeconds":2}}`,
		"run all", "away 1")
	d.now = d.now.Add(2 * time.Second)
	for try := range 3 {
		first := d.decide()
		if len(first.Forget) != 1 || first.Forget[0].Instance != "i1" {
			t.Fatalf("try %d: got %+v to be forgotten, want i1", try, first.Forget)
		}
		if again := d.decide(); len(again.Forget) != 0 {
			t.Errorf("try %d: asked twice while the kernel has not answered: %+v", try, again.Forget)
		}
		d.s.ForgetRefused(first.Forget, d.now)
		d.now = d.now.Add(d.s.Policy.ForgetRetry - time.Millisecond)
		if early := d.decide(); len(early.Forget) != 0 {
			t.Errorf("try %d: asked again before the pause: %+v", try, early.Forget)
		}
		d.now = d.now.Add(time.Millisecond)
	}
}

func TestAnUnreadableAppIsLeftAloneUntilItIsReplaced(t *testing.T) {
	d := after(t, `deploy /web {"cmd":"x","instances":2}`, "run all")
	delete(d.s.Apps, "/web") // as after a start from rows of which one cannot be read
	d.s.SetUnreadable("/web", "it is no JSON", d.now)
	d.s.Touch("/web")
	d.now = d.now.Add(time.Hour)
	if got := d.decide(); !got.Empty() {
		t.Errorf("decided %+v about an app that cannot be read", got)
	}
	if a := d.s.Alarms(); len(a) != 1 || a[0].Subject != "app /web" || !strings.Contains(a[0].Problem, "it is no JSON") {
		t.Errorf("alarms: got %+v, want one of app /web with the problem", a)
	}
	if !HasVersions(d.s, "/web") || HasVersions(d.s, "/other") {
		t.Error("its versions are there, those of an app that never was are not")
	}
	if err := NoApp(d.s, "/web", errdefs.ErrDataLoss); !errdefs.IsDataLoss(errors.Unwrap(err)) ||
		!strings.Contains(err.Error(), "marina app update") {
		t.Errorf("got %v, want data loss and a way out", err)
	}
	if err := NoApp(d.s, "/other", errdefs.ErrDataLoss); !errdefs.IsNotFound(errors.Unwrap(err)) {
		t.Errorf("an app that never was: got %v, want not found", err)
	}
	if err := d.command(`deploy /web {"cmd":"y","instances":2}`); err != nil {
		t.Fatal(err)
	}
	if a := d.s.Alarms(); len(a) != 0 || len(d.s.Unreadable()) != 0 {
		t.Errorf("replaced: got alarms %v and unreadable %v, want none", a, d.s.Unreadable())
	}
	if got := d.decide(); len(got.Launch) == 0 {
		t.Errorf("replaced: got %+v, want launches of the new version", got)
	}
}

func TestALaunchWhoseSpecPanicsIsTakenBackAndItsAppSetAside(t *testing.T) {
	d := newDriver()
	if err := d.command(`deploy /bad {"cmd":"x","instances":2} /good {"cmd":"x"}`); err != nil {
		t.Fatal(err)
	}
	asked := d.decide()
	at := slices.IndexFunc(asked.Launch, func(l Launch) bool { return l.App.ID == "/bad" })
	if at < 0 {
		t.Fatalf("got %+v, want a launch of /bad", asked.Launch)
	}
	aside := d.s.ParkLaunch(asked.Launch[at], &Panic{Value: "index out of range", Stack: []byte("here")}, d.now)
	if aside.Subject != "app /bad" || !strings.Contains(aside.Problem, "index out of range") ||
		string(aside.Stack) != "here" {
		t.Errorf("got %+v, want app /bad with the panic and its stack", aside)
	}
	if left := d.s.Instances("/bad"); len(left) != 0 {
		t.Errorf("got %d instances of a launch that was never made, want none", len(left))
	}
	d.now = d.now.Add(time.Hour)
	if again := d.decide(); slices.ContainsFunc(again.Launch, func(l Launch) bool { return l.App.ID == "/bad" }) {
		t.Errorf("launches %+v of an app that was set aside", again.Launch)
	}
}

func TestDeploymentRowsThatMakeNoSenseAreTold(t *testing.T) {
	app := &marathon.App{ID: "/web", Version: "v1"}
	good := func() *Deployment {
		return &Deployment{ID: "d", Changes: []Change{{App: "/web", To: app}},
			Steps: []marathon.Step{{Actions: []marathon.Action{{Action: marathon.StartApplication, App: "/web"}}}}}
	}
	if err := good().Intact("d"); err != nil {
		t.Fatalf("a whole one: %v", err)
	}
	for what, spoil := range map[string]func(*Deployment){
		"another's row":        func(d *Deployment) { d.ID = "other" },
		"before its steps":     func(d *Deployment) { d.Step = -1 },
		"past its steps":       func(d *Deployment) { d.Step = 1 },
		"without steps":        func(d *Deployment) { d.Steps = nil },
		"unknown action":       func(d *Deployment) { d.Steps[0].Actions[0].Action = "PauseApplication" },
		"app not in it":        func(d *Deployment) { d.Steps[0].Actions[0].App = "/other" },
		"start without an app": func(d *Deployment) { d.Changes[0].To = nil },
	} {
		d := good()
		if spoil(d); d.Intact("d") == nil {
			t.Errorf("%s: taken for whole", what)
		}
	}
	gone := good()
	gone.Changes[0].To, gone.Steps[0].Actions[0].Action = nil, marathon.StopApplication
	if err := gone.Intact("d"); err != nil {
		t.Errorf("one that removes an app: %v", err)
	}
}

// However many instances fail their checks, and whenever, no window has more kills than the brake allows.
func TestTheBrakeHoldsInEveryWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "instances")
		d := newDriver()
		err := d.command(fmt.Sprintf(`deploy /web {"cmd":"x","instances":%d,"healthChecks":[{"protocol":"COMMAND",`+
			`"command":{"value":"true"},"gracePeriodSeconds":0,"maxConsecutiveFailures":3}]}`, n))
		if err != nil {
			t.Fatal(err)
		}
		d.settle()
		if err := d.command("run all"); err != nil {
			t.Fatal(err)
		}
		d.settle()
		p := d.s.Policy
		allowed := max(p.BrakeFloor, int(p.BrakeShare*float64(n)+0.999999))
		var kills []time.Time
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			for _, id := range sortedIDs(d.placed) {
				what := "run"
				if rapid.Bool().Draw(t, "sick") {
					what = "sick"
				}
				if d.placed[id].Statuses[0].State < kernel.Running {
					what = "run"
				}
				if err := d.report(what, []string{string(id[1:])}); err != nil {
					t.Fatal(err)
				}
			}
			dec := Decide(d.s, d.now, func(string) kernel.InstanceID {
				d.next++
				return kernel.InstanceID(fmt.Sprint("i", d.next))
			})
			for range dec.Stop {
				kills = append(kills, d.now)
			}
			d.do(dec)
			for _, stopped := range dec.Stop {
				if err := d.report("end", []string{string(stopped.Instance[1:])}); err != nil {
					t.Fatal(err)
				}
			}
			d.now = d.now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
		}
		for i := range kills {
			within := 0
			for _, at := range kills[i:] {
				if at.Before(kills[i].Add(p.BrakeWindow)) {
					within++
				}
			}
			if within > allowed {
				t.Fatalf("%d of %d instances were killed within %v, allowed are %d", within, n, p.BrakeWindow, allowed)
			}
		}
	})
}

func TestAFilterMeansWhatItSays(t *testing.T) {
	d := after(t, `deploy /team/web {"cmd":"x","instances":3} /team/db {"cmd":"x"} /other {"cmd":"x"}`, "run 1 2")
	for _, i := range d.placed {
		i.Hostname = "m-" + string(i.ID)
	}
	if err := d.report("run", []string{"1", "2"}); err != nil {
		t.Fatal(err)
	}
	count := func(f Filter) int { return len(Pick(d.s, f)) }
	for _, tc := range []struct {
		f    Filter
		want int
	}{
		{Filter{}, 5}, {Filter{App: "/team/web"}, 3}, {Filter{App: "/team"}, 0}, {Filter{Below: "/team"}, 4},
		{Filter{Below: "/"}, 5}, {Filter{Below: "/tea"}, 0}, {Filter{Running: true}, 2}, {Filter{Staging: true}, 3},
		{Filter{Running: true, Staging: true}, 5},
		{Filter{Host: "m-i1"}, 1}, {Filter{Host: "m-i1", Below: "/other", Running: true}, 0}, {Filter{Host: "nowhere"}, 0},
	} {
		if got := count(tc.f); got != tc.want {
			t.Errorf("%+v: got %d instances, want %d", tc.f, got, tc.want)
		}
	}
	for _, id := range []string{"", "i1", "team_web.instance-nobody._app.1", "team_web", "../../x"} {
		if i := Find(d.s, id); i != nil {
			t.Errorf("task %q: got %s, want none", id, i.ID())
		}
	}
}
