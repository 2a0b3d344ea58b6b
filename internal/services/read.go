package services

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// What there is to read. Every function returns values of its own, which stay as they are while the state goes on:
// nobody who reads them holds a lock. They may be called by anyone at any time; before the state is loaded there is
// nothing in them, see Leading.

// Leading reports whether the state is loaded and still this process's to change.
func (s *Services) Leading() bool { return s.loop.Leading() }

// Ended is closed when nothing is decided here any more.
func (s *Services) Ended() <-chan struct{} { return s.loop.Ended() }

// Settings is how this datacenter runs apps, for those who ask.
type Settings struct {
	Leader, Build, DefaultRole       string
	FirstPort, LastPort, MaxVersions int
	LaunchTimeout                    time.Duration
}

// Settings are those of Config.
func (s *Services) Settings() Settings {
	c := &s.cfg
	return Settings{Leader: c.Leader, Build: c.Build, DefaultRole: c.DefaultRole, FirstPort: c.FirstPort, LastPort: c.LastPort,
		MaxVersions: c.MaxVersions, LaunchTimeout: c.Policy.LaunchTimeout}
}

// Apps lists all apps as they should be, by id.
func (s *Services) Apps() []*marathon.App {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*marathon.App, 0, len(s.state.Apps))
	for _, id := range sortedKeys(s.state.Apps) {
		out = append(out, s.state.Apps[id])
	}
	return out
}

// App is an app as it should be. The error says why there is none: it does not exist (errdefs.ErrNotFound), or its
// row cannot be read (errdefs.ErrDataLoss).
func (s *Services) App(id string) (*marathon.App, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if a := s.state.Apps[id]; a != nil {
		return a, nil
	}
	return nil, s.state.noApp(id, errdefs.ErrDataLoss)
}

// Describe tells how apps are: their instances, deployments and what embed names, in the order of the list.
func (s *Services) Describe(apps []*marathon.App, embed Embed) []marathon.AppInfo {
	machines, now := machinesOf(s.cfg.Kernel), time.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]marathon.AppInfo, 0, len(apps))
	for _, a := range apps {
		out = append(out, s.state.Info(a, embed, machines, now))
	}
	return out
}

// machinesOf are the kernel's agents by id, for the addresses of tasks.
func machinesOf(k kernel.Kernel) map[kernel.AgentID]kernel.AgentView {
	out := map[kernel.AgentID]kernel.AgentView{}
	for _, a := range k.Agents() {
		out[a.ID] = a
	}
	return out
}

// Versions lists the versions that are kept of an app, oldest first; of one whose row cannot be read, too.
func (s *Services) Versions(id string) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.state.hasVersions(id) {
		return nil, s.state.noApp(id, errdefs.ErrDataLoss)
	}
	return append([]string{}, s.versions[id]...), nil
}

// hasVersions reports whether an app is there, be it that only its versions can be read.
func (s *State) hasVersions(id string) bool {
	_, unreadable := s.unreadable[id]
	return unreadable || s.Apps[id] != nil
}

// Version reads one version of an app from the store.
func (s *Services) Version(ctx context.Context, id, version string) (*marathon.App, error) {
	if _, err := s.Versions(id); err != nil {
		return nil, err
	}
	row, err := versionRows(id).Get(ctx, s.cfg.Store, version)
	switch {
	case errdefs.IsNotFound(err):
		return nil, Problemf(errdefs.ErrNotFound, "App '%s' does not exist in version %s", id, version)
	case errdefs.IsDataLoss(err):
		return nil, Problemf(errdefs.ErrDataLoss, "Version %s of app '%s' cannot be read", version, id)
	case err != nil:
		return nil, err
	}
	return &row.Value, nil
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
	state := !f.Running && !f.Staging || f.Running && i.State() == kernel.Running || f.Staging && i.State() < kernel.Running
	return state && (f.Host == "" || i.Hostname == f.Host)
}

// pick lists the placed instances that the filter means, by app and id.
func (f *Filter) pick(s *State) (out []*Instance) {
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
func (s *Services) Tasks(f Filter) []marathon.Task {
	machines := machinesOf(s.cfg.Kernel)
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []marathon.Task{}
	for _, i := range f.pick(s.state) {
		out = append(out, s.state.task(i, machines))
	}
	return out
}

// Deployments tells how the running deployments are, oldest first.
func (s *Services) Deployments() []marathon.DeploymentInfo {
	refusals := map[string]string{}
	for _, w := range s.cfg.Kernel.Queue(marathon.Framework) {
		refusals[w.Owner] = w.Refusal.String()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []marathon.DeploymentInfo{}
	for _, d := range s.state.Deployments {
		out = append(out, s.state.describe(d, refusals))
	}
	return out
}

func (s *State) describe(d *Deployment, refusals map[string]string) marathon.DeploymentInfo {
	out := marathon.DeploymentInfo{ID: d.ID, Version: d.Version, AffectedApps: []string{}, AffectedPods: []string{}, Steps: orEmpty(d.Steps),
		CurrentActions: []marathon.CurrentAction{}, CurrentStep: d.Step + 1, TotalSteps: len(d.Steps), Reason: s.Why(d, refusals)}
	for _, c := range d.Changes {
		out.AffectedApps = append(out.AffectedApps, c.App)
	}
	if d.Step < 0 || d.Step >= len(d.Steps) { // it could not be read
		return out
	}
	for _, a := range d.Steps[d.Step].Actions {
		out.CurrentActions = append(out.CurrentActions, marathon.CurrentAction{Action: a, Readiness: []marathon.ReadinessCheck{}})
	}
	return out
}

// Queued is an app with instances left to launch: what Marathon says of it, without the summary of offers, and what
// the kernel says.
type Queued struct {
	marathon.QueueItem
	Waiting kernel.Waiting // zero: nothing of it waits in the kernel
}

// Queue lists the apps with instances left to launch, by id.
func (s *Services) Queue() []Queued {
	waiting := map[string]kernel.Waiting{}
	for _, w := range s.cfg.Kernel.Queue(marathon.Framework) {
		waiting[w.Owner] = w
	}
	now := time.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []Queued{}
	for _, id := range sortedKeys(s.state.fleets) {
		f, a := s.state.fleets[id], s.state.Apps[id]
		queued := f.waiting()
		if a == nil || f.missing+len(queued) == 0 {
			continue
		}
		q := Queued{marathon.QueueItem{App: a, Count: f.missing + len(queued), Role: a.Role, Since: marathon.Timestamp(f.since),
			Delay: marathon.QueueDelay{Overdue: true}}, waiting[id]}
		if len(queued) > 0 {
			q.Since = marathon.Timestamp(s.state.time(queued[0].since))
		}
		if f.backoff.Version == a.Config() && f.backoff.Until.After(now) {
			q.Delay = marathon.QueueDelay{TimeLeftSeconds: int(math.Ceil(f.backoff.Until.Sub(now).Seconds()))}
		}
		if w, ok := waiting[id]; ok {
			q.Refusal, q.Hold = w.Refusal.String(), w.Hold
		}
		out = append(out, q)
	}
	return out
}

func (f *fleet) waiting() []*Instance {
	return slices.DeleteFunc(slices.Clone(f.all()), func(i *Instance) bool { return !i.Waiting || i.Stopping })
}

// Figures are a few numbers: what there is now, and what happened since this leader began.
type Figures struct {
	Apps, Deployments, Running, Staged, Missing int
	Launched, Stopped, Started, Finished        int64 // instances, instances, deployments, deployments
}

// Figures counts.
func (s *Services) Figures() Figures {
	c := &s.count
	out := Figures{Launched: c.launched.Load(), Stopped: c.stopped.Load(), Started: c.started.Load(), Finished: c.finished.Load()}
	s.mu.RLock()
	defer s.mu.RUnlock()
	out.Apps, out.Deployments = len(s.state.Apps), len(s.state.Deployments)
	for _, f := range s.state.fleets {
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
