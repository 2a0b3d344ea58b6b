package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// What is set aside, and how it comes back:
//
//	an app's row cannot be read     Its instances are left as they are, its name stays taken. Another version by
//	                                force, or its removal by force.
//	a deployment cannot be read     It goes no further. Each of its apps is kept as its own row says, and no instance
//	                                of it is ended for being of another version; one without row, which it removes,
//	                                is left as it is. A force that changes one of its apps, or cancels it.
//	a deployment cannot be written  It stays at its step, and its apps are kept at that. Likewise.
//	deciding an app panicked        It is left as it is, and its deployment waits. A deployment that changes it, or
//	                                the next leader.
//	deciding a deployment panicked  As one that cannot be written; or the next leader.

// asides keeps what was set aside, until it comes back.
type asides struct {
	alarms map[string]kernel.Alarm // by subject
	broken map[string]string       // apps whose rows cannot be read, with why
	news   []Aside                 // set aside since the last decision
}

func newAsides() asides {
	return asides{alarms: map[string]kernel.Alarm{}, broken: map[string]string{}}
}

// Alarms lists what was set aside, by subject.
func (a *asides) Alarms() []kernel.Alarm {
	out := []kernel.Alarm{}
	for _, subject := range sortedKeys(a.alarms) {
		out = append(out, a.alarms[subject])
	}
	return out
}

// Unreadable lists the apps whose rows cannot be read, with why. It is the state's own.
func (a *asides) Unreadable() map[string]string { return a.broken }

// SetUnreadable sets an app aside whose row cannot be read.
func (a *asides) SetUnreadable(id, problem string, now time.Time) {
	a.broken[id] = problem
	a.raise(kernel.Alarm{Subject: appSubject(id), Since: now, Do: wayOut(id),
		Problem: "its definition cannot be read, what runs of it is left alone: " + problem})
}

func (a *asides) raise(alarm kernel.Alarm) { a.alarms[alarm.Subject] = alarm }

func (a *asides) lift(subject string) { delete(a.alarms, subject) }

// Panic keeps the value of a panic, and its stack if State.Stack can tell.
type Panic struct {
	Value any
	Stack []byte
}

// catch calls f and returns the panic that ended it, nil if none did. What f had changed stays changed.
func (s *State) catch(f func()) (p *Panic) {
	defer func() {
		if v := recover(); v != nil {
			if p = (&Panic{Value: v}); s.Stack != nil {
				p.Stack = s.Stack()
			}
		}
	}()
	f()
	return nil
}

// Aside is something that was set aside just now. Stack is where it panicked, if it did.
type Aside struct {
	kernel.Alarm
	Stack []byte
}

func appSubject(id string) string            { return "app " + id }
func deploymentSubject(d *Deployment) string { return "deployment " + d.ID }
func panicked(what string, p *Panic) string {
	return fmt.Sprintf("%s panicked: %v", what, p.Value)
}

// wayOut tells an operator how to get rid of an app's row that cannot be read.
func wayOut(id string) string {
	return fmt.Sprintf("replace it by a whole definition with `marina app update FILE --force` "+
		"(PUT /v2/apps%s?force=true; GET /v2/apps%s/versions lists earlier ones), or remove it with "+
		"`marina app remove %s --force` (DELETE /v2/apps%s?force=true)", id, id, id, id)
}

// Park sets a running deployment aside: its apps stay at its current step, and are kept at that as before.
func (s *State) Park(d *Deployment, problem string, now time.Time) Aside {
	d.Parked = problem
	a := kernel.Alarm{Subject: deploymentSubject(d), Problem: problem, Since: now,
		Do: fmt.Sprintf("cancel it with `marina deployment rollback %s --force` (DELETE /v2/deployments/%s?force=true): "+
			"what runs stays, and its apps become what their definitions say", d.ID, d.ID)}
	s.raise(a)
	return Aside{Alarm: a}
}

// ParkApp sets an app aside since something about it panicked: nothing is launched, ended or given up until it is
// changed.
func (s *State) ParkApp(id, what string, p *Panic, now time.Time) Aside {
	f := s.fleet(id)
	f.parked = panicked(what, p)
	f.stale, f.wake, f.done, f.why = false, time.Time{}, false, "it was set aside: "+f.parked
	a := kernel.Alarm{Subject: appSubject(id), Problem: f.parked + "; it is left as it is", Since: now,
		Do: fmt.Sprintf("report it with this master's log; a change of the app or another leader tries again: "+
			"`marina app update %s instances=N --force`", id)}
	s.raise(a)
	return Aside{a, p.Stack}
}

// ParkLaunch sets an app aside since making the spec of a launch panicked, and takes the launch back.
func (s *State) ParkLaunch(l Launch, p *Panic, now time.Time) Aside {
	s.undo(s.fleet(l.App.ID), &Decision{}, l.Groups)
	return s.ParkApp(l.App.ID, "making its instances' spec", p, now)
}

// undo takes back what a decision that is dropped noted of instances.
func (s *State) undo(f *fleet, d *Decision, minted []kernel.InstanceID) {
	asked := []Ref{}
	for _, w := range d.Withdraw {
		asked = append(asked, w.Ref)
	}
	for _, k := range d.Stop {
		asked = append(asked, k.Ref)
	}
	for _, r := range asked {
		if i, ok := f.instances.Get(r.Instance); ok {
			i.Stopping = false
		}
	}
	for _, r := range d.Forget {
		if i, ok := f.instances.Get(r.Instance); ok {
			i.forgotten = false
		}
	}
	for _, id := range minted {
		f.drop(id)
	}
}

// Intact returns what is wrong with a deployment although its row could be decoded.
func (d *Deployment) Intact(id string) error {
	if d.ID != id {
		return fmt.Errorf("it says that it is deployment %.60q", d.ID)
	}
	if d.Step < 0 || d.Step >= len(d.Steps) {
		return fmt.Errorf("it is at step %d of %d", d.Step+1, len(d.Steps))
	}
	known := []string{marathon.StartApplication, marathon.ScaleApplication, marathon.RestartApplication,
		marathon.StopApplication}
	for _, step := range d.Steps {
		for _, a := range step.Actions {
			c := d.Change(a.App)
			if !slices.Contains(known, a.Action) || c == nil || c.To == nil && a.Action != marathon.StopApplication {
				return fmt.Errorf("it has a step that this version does not know: %.60q of app %.200q", a.Action, a.App)
			}
		}
	}
	return nil
}
