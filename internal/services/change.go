package services

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/services/core"
	"github.com/marinaos/marina/internal/store"
)

// LockedError refuses a change of apps that running deployments are changing.
type LockedError struct{ Deployments []string }

// Error says what to do.
func (e *LockedError) Error() string {
	return "App is locked by one or more deployments. Override with the option '?force=true'. " +
		"View details at '/v2/deployments/<DEPLOYMENT_ID>'."
}

// tx gathers one change: the rows, and what is done to the state once they are durable. It lives inside the owner's
// goroutine, which alone writes the state, so it reads the state without the lock.
type tx struct {
	*scheduler.Change
	s       *Services
	now     time.Time
	version string
	root    map[string]*marathon.App // all apps as they will be
	earlier map[string]earlier       // by app: the versions that the request goes back to, read before the owner was asked
	applied []func()
	events  []marathon.Event
}

// begin makes a change one of services, with a version later than any given out.
func (s *Services) begin(c *scheduler.Change) *tx {
	now := time.Now()
	version := marathon.Timestamp(now)
	if version <= s.last {
		if last, ok := marathon.ParseTimestamp(s.last); ok {
			version = marathon.Timestamp(last.Add(time.Millisecond))
		}
	}
	t := &tx{Change: c, s: s, now: now, version: version}
	c.Then(t.apply)
	return t
}

// apply takes the change into the state once it is durable.
func (t *tx) apply() {
	t.s.last = max(t.s.last, t.version)
	t.s.mu.Lock()
	for _, f := range t.applied {
		f()
	}
	t.s.mu.Unlock()
	t.s.hub.publish(t.events)
}

func (t *tx) putErr(op store.Op, err error) error {
	if err == nil {
		t.Put(op)
	}
	return err
}

// then has f change the state, under its lock, once the change is durable.
func (t *tx) then(f func()) { t.applied = append(t.applied, f) }

// apps is all apps as they will be after this change.
func (t *tx) apps() map[string]*marathon.App {
	if t.root == nil {
		t.root = maps.Clone(t.s.state.Apps)
	}
	return t.root
}

// noApp refuses a change of an app of which there is no definition.
func (t *tx) noApp(id string) error { return core.NoApp(t.s.state, id, errdefs.ErrAlreadyExists) }

func (t *tx) unreadable(id string) bool {
	_, ok := t.s.state.Unreadable()[id]
	return ok
}

// create makes the first version of an app. Its id may be no group, and no group above it may be an app.
func (t *tx) create(id string, given map[string]any) (*marathon.App, error) {
	if _, errs := marathon.AppID(id, "/"); len(errs) > 0 {
		return nil, marathon.ContentError(marathon.Bad("/id", errs...))
	}
	if n := len(t.apps()); n >= t.s.cfg.MaxApps {
		return nil, fmt.Errorf("there are %d apps, the limit: remove some, and ask again: %w",
			n, errdefs.ErrResourceExhausted)
	}
	same := func(other string) bool { return marathon.Under(id, other) || marathon.Under(other, id) }
	for other := range t.apps() {
		if same(other) {
			return nil, marathon.ContentError(marathon.Bad("/id", "Groups and Applications may not have the same identifier."))
		}
	}
	for other := range t.s.state.Unreadable() {
		if same(other) {
			return nil, marathon.ContentError(marathon.Bad("/id", "Groups and Applications may not have the same identifier."))
		}
	}
	return t.prepare(id, given, nil, false)
}

// update is one app of a PUT or PATCH. One whose row cannot be read is made anew by a PUT with force.
func (t *tx) update(id string, given map[string]any, partial, create, force bool) (core.Change, error) {
	old := t.apps()[id]
	if old == nil && (!create || t.unreadable(id) && !force) {
		return core.Change{}, t.noApp(id)
	}
	var a *marathon.App
	var err error
	if old == nil {
		a, err = t.create(id, given)
	} else {
		a, err = t.prepare(id, given, old, partial)
	}
	return core.Change{App: id, From: old, To: a}, err
}

// prepare makes the next version of an app out of a request, or returns old itself if nothing changes. old is nil for
// a new app.
func (t *tx) prepare(id string, given map[string]any, old *marathon.App, partial bool) (*marathon.App, error) {
	if _, ok := given["version"].(string); ok && old != nil {
		return t.restore(given, old)
	}
	given["id"] = id
	a, err := marathon.Read(given, old, partial)
	if err != nil {
		return nil, err
	}
	a.ID = id
	roles := []string{t.s.cfg.DefaultRole}
	if top := marathon.TopGroup(id); top != "/" {
		roles = append(roles, top[1:])
	}
	if old != nil && !slices.Contains(roles, old.Role) {
		roles = append(roles, old.Role)
	}
	if a.Role == "" && old != nil {
		a.Role = old.Role
	} else if a.Role == "" {
		a.Role = roles[len(roles)-1]
	}
	errs := append(a.Validate(roles), a.ForeignVIPs(t.s.cfg.VIPs)...)
	errs = append(errs, a.ForeignVolumes(t.s.cfg.HostVolumes)...)
	errs = append(errs, a.FoldDependencies()...)
	if len(errs) > 0 {
		return nil, marathon.ContentError(errs)
	}
	return t.finish(a, old)
}

// finish gives an app its ports and version.
func (t *tx) finish(a, old *marathon.App) (*marathon.App, error) {
	used, open := t.usedPorts(a.ID)
	if err := a.AssignPorts(old, used, t.s.cfg.FirstPort, t.s.cfg.LastPort); err != nil {
		return nil, err
	}
	for _, p := range a.PublishedPorts() {
		if other := open[p]; other != "" {
			return nil, marathon.ContentError([]marathon.Detail{{Path: "/labels",
				Errors: []string{fmt.Sprintf("service port %d is already open on every machine for app %s", p, other)}}})
		}
	}
	a.Version, a.VersionInfo = t.version, &marathon.VersionInfo{LastScalingAt: t.version, LastConfigChangeAt: t.version}
	if old != nil && marathon.SameConfig(a, old) {
		if a.Instances == old.Instances {
			return old, nil
		}
		a.VersionInfo.LastConfigChangeAt = old.Config()
	}
	if _, err := marathon.Spec(a); err != nil {
		return nil, marathon.ContentError([]marathon.Detail{{Path: "/", Errors: []string{err.Error()}}})
	}
	return a, nil
}

// usedPorts are the service ports of all other apps, and those of them that are open on every machine.
func (t *tx) usedPorts(but string) (used, open map[int]string) {
	used, open = map[int]string{}, map[int]string{}
	for id, a := range t.apps() {
		if id == but {
			continue
		}
		for _, p := range a.ServicePorts() {
			used[p] = id
		}
		for _, p := range a.PublishedPorts() {
			open[p] = id
		}
	}
	return used, open
}

// restore makes the next version of an app out of the earlier one that its asker read.
func (t *tx) restore(given map[string]any, old *marathon.App) (*marathon.App, error) {
	for k, v := range given {
		if k != "version" && k != "id" && v != nil {
			return nil, marathon.ContentError([]marathon.Detail{{Path: "/version",
				Errors: []string{"The 'version' field may only be combined with the 'id' field."}}})
		}
	}
	e := t.earlier[old.ID]
	if e.app == nil {
		return nil, e.err
	}
	return t.finish(e.app.Clone(), old)
}

// earlier is a version of an app that a request goes back to, or why it cannot be read.
type earlier struct {
	app *marathon.App
	err error
}

// deploy plans a deployment of the changes and puts everything it needs into the change. Apps that do not change are
// left out; what is then empty is no deployment but still has an id.
func (t *tx) deploy(changes []core.Change, force bool) (*core.Deployment, error) {
	s := t.s
	changes = slices.DeleteFunc(changes, func(c core.Change) bool {
		_, unreadable := s.state.Unreadable()[c.App]
		return c.From == c.To && len(c.Victims) == 0 && !unreadable
	})
	locked := s.state.Conflicts(changes)
	if len(locked) > 0 && !force {
		e := &LockedError{}
		for _, d := range locked {
			e.Deployments = append(e.Deployments, d.ID)
		}
		return nil, e
	}
	if len(changes) > 0 && len(s.state.Deployments)-len(locked) >= core.MaxDeployments {
		return nil, marathon.Problemf(errdefs.ErrPermissionDenied,
			"Max number (%d) of running deployments is achieved. Wait for existing deployments to complete or cancel one "+
				"using force=true parameter. You can increase max deployment number by using "+
				"--max_running_deployments parameter.", core.MaxDeployments)
	}
	root, ids := t.apps(), []string{}
	for _, c := range changes {
		if c.To == nil {
			delete(root, c.App)
		} else {
			root[c.App] = c.To
			ids = append(ids, c.App)
		}
	}
	if core.Cyclic(root, ids) {
		return nil, marathon.ContentError([]marathon.Detail{{Path: "/dependencies",
			Errors: []string{"Dependency graph has cyclic dependencies."}}})
	}
	d := core.NewDeployment(s.cfg.NewID(), t.version, changes, root, s.state.Mixed)
	for _, l := range locked {
		t.forgetDeployment(l, d)
		t.events = append(t.events, core.DeploymentEnd("deployment_failed", l, "cancelled by deployment "+d.ID, t.now))
	}
	for _, c := range changes {
		if err := t.putApp(c, d); err != nil {
			return nil, err
		}
	}
	t.events = append(t.events, core.StepEvent("deployment_info", d, t.now))
	if len(d.Steps) > 0 {
		if err := t.putErr(rowOf(d, 0)); err != nil {
			return nil, err
		}
	} else {
		t.events = append(t.events, core.GroupChanged(d.Version, t.now), core.DeploymentEnd("deployment_success", d, "",
			t.now))
	}
	t.then(func() { s.state.Begin(d, locked) })
	s.count.started.Add(1)
	s.cfg.Log.Info("deployment begins", "deployment", d.ID, "version", d.Version, "apps", len(changes), "cancels",
		len(locked))
	return d, nil
}

// putApp writes an app's rows and drops versions beyond the limit, the oldest first, but none that a deployment names.
func (t *tx) putApp(c core.Change, d *core.Deployment) error {
	if c.To == nil {
		t.Put(appRows.Delete(c.App))
		return nil
	}
	if err := t.putErr(appRows.Put(c.App, *c.To)); err != nil {
		return err
	}
	rows := versionRows(c.App)
	if err := t.putErr(rows.Put(c.To.Version, *c.To)); err != nil {
		return err
	}
	list := append(slices.Clone(t.s.versions[c.App]), c.To.Version)
	surplus := len(list) - t.s.cfg.MaxVersions
	list = slices.DeleteFunc(list, func(v string) bool {
		if surplus <= 0 || v == c.To.Version || t.named(d, c.App, v) {
			return false
		}
		surplus--
		t.Put(rows.Delete(v))
		return true
	})
	t.then(func() { t.s.versions[c.App] = list })
	return nil
}

// named reports whether a deployment leads from or to a version.
func (t *tx) named(more *core.Deployment, app, version string) bool {
	return slices.ContainsFunc(append(slices.Clone(t.s.state.Deployments), more), func(d *core.Deployment) bool {
		c := d.Change(app)
		return c != nil && (c.From != nil && c.From.Version == version || c.To != nil && c.To.Version == version)
	})
}

// forgetDeployment removes a deployment's row, and the versions of apps that are gone with it. Those that next, which
// takes its place, names are still needed.
func (t *tx) forgetDeployment(d, next *core.Deployment) {
	t.Put(deploymentRows.Delete(d.ID))
	room := maxForgotten
	var later []*scheduler.Change
	for _, c := range d.Changes {
		if t.apps()[c.App] != nil || next != nil && next.Change(c.App) != nil {
			continue
		}
		for _, v := range t.s.versions[c.App] {
			into := t.Change
			if room--; room < 0 {
				into = &scheduler.Change{}
				later = append(later, into)
			}
			into.Put(versionRows(c.App).Delete(v))
		}
		t.then(func() { delete(t.s.versions, c.App) })
	}
	if len(later) > 0 {
		t.After(func(ctx context.Context) error {
			_, err := t.s.loop.CommitAll(ctx, later)
			return err
		})
	}
}

// maxForgotten bounds the versions that go in the transaction that ends a deployment; further ones go after it, and
// would a leader be lost in between, they stay for nobody.
const maxForgotten = store.MaxTxnOps / 2

// rollback is the change that undoes a deployment. Apps get back the config version they had, so that instances of it
// which still run are kept.
func (t *tx) rollback(d *core.Deployment) (*core.Deployment, error) {
	if d.Unreadable {
		return nil, marathon.Problemf(errdefs.ErrAlreadyExists,
			"Deployment %s cannot be undone: %s. Cancel it with force=true: what runs stays, "+
				"and its apps become what their definitions say", d.ID, d.Parked)
	}
	changes := []core.Change{}
	for _, c := range d.Changes {
		k := core.Change{App: c.App, From: t.apps()[c.App]}
		if c.From != nil {
			k.To = c.From.Clone()
			k.To.Version = t.version
			k.To.VersionInfo = &marathon.VersionInfo{LastScalingAt: t.version, LastConfigChangeAt: c.From.Config()}
			used, _ := t.usedPorts(c.App)
			for _, p := range c.From.ServicePorts() {
				if used[p] != "" && c.To == nil {
					return nil, marathon.Problemf(errdefs.ErrInvalidArgument, "service port %d of app %s is now used by app %s", p,
						c.App, used[p])
				}
			}
		}
		changes = append(changes, k)
	}
	return t.deploy(changes, true)
}

// restart is the same app under a new config version.
func (t *tx) restart(a *marathon.App) *marathon.App {
	b := a.Clone()
	b.Version, b.VersionInfo = t.version, &marathon.VersionInfo{LastScalingAt: t.version, LastConfigChangeAt: t.version}
	return b
}

// scaled is the same app with another number of instances.
func (t *tx) scaled(a *marathon.App, n int) *marathon.App {
	b := a.Clone()
	b.Instances, b.Version = max(0, n), t.version
	b.VersionInfo = &marathon.VersionInfo{LastScalingAt: t.version, LastConfigChangeAt: a.Config()}
	return b
}

// killAndScale makes the change that ends instances and wants as many fewer.
func (t *tx) killAndScale(refs []core.Ref) []core.Change {
	victims := map[string][]kernel.InstanceID{}
	for _, r := range refs {
		victims[r.App] = append(victims[r.App], r.Instance)
	}
	changes := []core.Change{}
	for _, id := range sortedKeys(victims) {
		if a := t.apps()[id]; a != nil {
			changes = append(changes, core.Change{App: id, From: a, To: t.scaled(a, a.Instances-len(victims[id])),
				Victims: victims[id]})
		}
	}
	return changes
}

// killNow ends instances; the apps get new ones.
func (t *tx) killNow(refs []core.Ref) {
	var d core.Decision
	t.then(func() { d = t.s.state.Kill(refs, "killed by a request") })
	t.After(func(ctx context.Context) error { return t.s.carryOut(ctx, d) })
}
