package services

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services/core"
)

// What there is to read. Every function returns values of its own, which stay as they are while the state goes on:
// nobody who reads them holds a lock. They may be called by anyone at any time; before the state is loaded there is
// nothing in them, see Leading.

// Alarms lists what was set aside, by subject.
func (s *Services) Alarms() []kernel.Alarm {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.Alarms()
}

// Leading reports whether the state is loaded and still this process's to change.
func (s *Services) Leading() bool { return s.loop.Leading() }

// Ended is closed when nothing is decided here any more.
func (s *Services) Ended() <-chan struct{} { return s.loop.Ended() }

// Settings are the limits and addresses of this datacenter's apps, for those who ask.
type Settings struct {
	Leader, Build, DefaultRole       string
	FirstPort, LastPort, MaxVersions int
	LaunchTimeout                    time.Duration
}

// Settings are those of Config.
func (s *Services) Settings() Settings {
	c := &s.cfg
	return Settings{Leader: c.Leader, Build: c.Build, DefaultRole: c.DefaultRole, FirstPort: c.FirstPort,
		LastPort:    c.LastPort,
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
	return nil, core.NoApp(s.state, id, errdefs.ErrDataLoss)
}

// Describe tells how apps are: their instances, deployments and what embed names, in the order of the list.
func (s *Services) Describe(apps []*marathon.App, embed core.Embed) []marathon.AppInfo {
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
	if !core.HasVersions(s.state, id) {
		return nil, core.NoApp(s.state, id, errdefs.ErrDataLoss)
	}
	return append([]string{}, s.versions[id]...), nil
}

// Version reads one version of an app from the store.
func (s *Services) Version(ctx context.Context, id, version string) (*marathon.App, error) {
	if _, err := s.Versions(id); err != nil {
		return nil, err
	}
	row, err := versionRows(id).Get(ctx, s.cfg.Store, version)
	switch {
	case errdefs.IsNotFound(err):
		return nil, marathon.Problemf(errdefs.ErrNotFound, "App '%s' does not exist in version %s", id, version)
	case errdefs.IsDataLoss(err):
		return nil, marathon.Problemf(errdefs.ErrDataLoss, "Version %s of app '%s' cannot be read", version, id)
	case err != nil:
		return nil, err
	}
	return &row.Value, nil
}

// Tasks tells how the tasks that a filter means are, by app and id.
func (s *Services) Tasks(f core.Filter) []marathon.Task {
	machines := machinesOf(s.cfg.Kernel)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return core.Tasks(s.state, f, machines)
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
		out = append(out, core.Describe(s.state, d, refusals))
	}
	return out
}

// Queue lists the apps with instances left to launch, by id.
func (s *Services) Queue() []core.Queued {
	waiting := map[string]kernel.Waiting{}
	for _, w := range s.cfg.Kernel.Queue(marathon.Framework) {
		waiting[w.Owner] = w
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return core.Queue(s.state, waiting, time.Now())
}

// Figures counts.
func (s *Services) Figures() core.Figures {
	s.mu.RLock()
	out := core.Count(s.state)
	s.mu.RUnlock()
	c := &s.count
	out.Launched, out.Stopped, out.Started, out.Finished = c.launched.Load(), c.stopped.Load(), c.started.Load(),
		c.finished.Load()
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
