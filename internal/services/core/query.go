package core

import (
	"math"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// NoApp says why there is no definition of an app: it does not exist, or its row cannot be read; kind is of the second.
func NoApp(s *State, id string, kind error) error {
	if why, ok := s.broken[id]; ok {
		return marathon.Problemf(kind,
			"The definition of app '%s' cannot be read (%s), and what runs of it is left alone. You can %s", id, why, wayOut(id))
	}
	return marathon.Problemf(errdefs.ErrNotFound, "App '%s' does not exist", id)
}

// HasVersions reports whether an app is there, be it that only its versions can be read.
func HasVersions(s *State, id string) bool {
	_, unreadable := s.broken[id]
	return unreadable || s.Apps[id] != nil
}

// Filter says which instances are meant: those for which every field that is given holds.
type Filter struct {
	App              string // of this app
	Below            string // of the apps below this group
	Host             string // on this machine
	Running, Staging bool   // in one of these states
}

func (f *Filter) app(id string) bool {
	return (f.App == "" || id == f.App) && (f.Below == "" || marathon.Under(id, f.Below))
}

func (f *Filter) instance(i *Instance) bool {
	state := !f.Running && !f.Staging || f.Running && i.State() == kernel.Running || f.Staging &&
		i.State() < kernel.Running
	return state && (f.Host == "" || i.Hostname == f.Host)
}

// Pick lists the placed instances that a filter means, by app and id.
func Pick(s *State, f Filter) (out []*Instance) {
	for _, id := range sortedKeys(s.fleets) {
		if !f.app(id) {
			continue
		}
		for _, i := range s.placedInstances(id) {
			if f.instance(i) {
				out = append(out, i)
			}
		}
	}
	return out
}

// Tasks tells how the tasks that a filter means are, by app and id.
func Tasks(s *State, f Filter, machines map[kernel.AgentID]kernel.AgentView) []marathon.Task {
	out := []marathon.Task{}
	for _, i := range Pick(s, f) {
		out = append(out, TaskOf(s, i, machines))
	}
	return out
}

// Find resolves a task id of any form, or an instance id, to an instance that is placed.
func Find(s *State, id string) *Instance {
	group, ok := marathon.GroupOfTask(id)
	if !ok {
		return nil
	}
	name, _, _ := strings.Cut(group, ".instance-")
	candidates := []string{"/" + strings.ReplaceAll(name, "_", "/")}
	for _, app := range candidates {
		if f := s.fleets[app]; f != nil {
			if i, ok := f.instances.Get(kernel.InstanceID(group)); ok && !i.Waiting {
				return i
			}
		}
	}
	return nil
}

// Describe tells how a deployment is; refusals is why an app's instances wait in the kernel.
func Describe(s *State, d *Deployment, refusals map[string]string) marathon.DeploymentInfo {
	out := marathon.DeploymentInfo{ID: d.ID, Version: d.Version, AffectedApps: []string{}, AffectedPods: []string{},
		Steps:          orEmpty(d.Steps),
		CurrentActions: []marathon.CurrentAction{}, CurrentStep: d.Step + 1, TotalSteps: len(d.Steps), Reason: s.Why(d,
			refusals)}
	for _, c := range d.Changes {
		out.AffectedApps = append(out.AffectedApps, c.App)
	}
	if d.Step < 0 || d.Step >= len(d.Steps) { // it could not be read
		return out
	}
	for _, a := range d.Steps[d.Step].Actions {
		out.CurrentActions = append(out.CurrentActions, marathon.CurrentAction{Action: a,
			Readiness: []marathon.ReadinessCheck{}})
	}
	return out
}

// Queued is an app with instances left to launch: what Marathon says of it, without the summary of offers, and what
// the kernel says.
type Queued struct {
	marathon.QueueItem
	Waiting kernel.Waiting // zero: nothing of it waits in the kernel
}

// Queue lists the apps with instances left to launch, by id. waiting is the kernel's queue by app.
func Queue(s *State, waiting map[string]kernel.Waiting, now time.Time) []Queued {
	out := []Queued{}
	for _, id := range sortedKeys(s.fleets) {
		f, a := s.fleets[id], s.Apps[id]
		queued := f.waiting()
		if a == nil || f.missing+len(queued) == 0 {
			continue
		}
		q := Queued{marathon.QueueItem{App: a, Count: f.missing + len(queued), Role: a.Role,
			Since: marathon.Timestamp(f.since),
			Delay: marathon.QueueDelay{Overdue: true}}, waiting[id]}
		if len(queued) > 0 {
			q.Since = marathon.Timestamp(s.time(queued[0].since))
		}
		if f.backoff.Version == a.Config() && f.backoff.Until.After(now) {
			q.Delay = marathon.QueueDelay{TimeLeftSeconds: int(math.Ceil(f.backoff.Until.Sub(now).Seconds()))}
		}
		if w, ok := waiting[id]; ok {
			q.Refusal, q.Hold = w.Refusal.String(), w.Backfill
		}
		out = append(out, q)
	}
	return out
}

// Launches reports whether an app has instances left to launch.
func Launches(s *State, id string) bool {
	f := s.fleets[id]
	return f != nil && (f.missing > 0 || len(f.waiting()) > 0)
}

// Figures are a few numbers: what there is now, and what happened since this leader began.
type Figures struct {
	Apps, Deployments, Running, Staged, Missing int
	Launched, Stopped, Started, Finished        int64 // instances, instances, deployments, deployments
}

// Count counts what there is now.
func Count(s *State) (out Figures) {
	out.Apps, out.Deployments = len(s.Apps), len(s.Deployments)
	for _, f := range s.fleets {
		for i := range f.instances.All {
			switch {
			case i.Waiting:
				out.Missing++
			case i.State() == kernel.Running:
				out.Running++
			case i.State() < kernel.Running:
				out.Staged++
			}
		}
		out.Missing += f.missing
	}
	return out
}
