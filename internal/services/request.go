package services

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services/core"
)

// What can be asked for. Each function returns once the change is durable. Its errors are a Problem, a LockedError,
// or one of marathon's when the request is refused; otherwise its outcome is not known here. A change that was handed
// to the owner is not stopped half way when ctx ends.

// Asker names the requester of a change, and how much he insists. From and Path go into the event that tells of it.
type Asker struct {
	From, Path string
	Force      bool // deployments that are in the way are cancelled
}

// Update has the wanted fields of one app's definition, parsed; they are taken over.
type Update struct {
	ID    string
	Given map[string]any
}

func (s *Services) change(ctx context.Context, plan func(*tx) error) error {
	return s.do(context.WithoutCancel(ctx), plan)
}

// posted tells of an accepted change of an app.
func (t *tx) posted(by Asker, a *marathon.App) {
	const kind = "api_post_event"
	t.events = append(t.events, marathon.Event{Type: kind, Data: marathon.APIPost{Head: marathon.NewHead(kind, t.now),
		ClientIP: by.From, URI: by.Path,
		AppDefinition: a}})
}

// Create makes an app that does not exist yet.
func (s *Services) Create(ctx context.Context, u Update, by Asker) (a *marathon.App, d *core.Deployment, err error) {
	err = s.change(ctx, func(t *tx) (err error) {
		if t.unreadable(u.ID) {
			return t.noApp(u.ID)
		}
		if t.apps()[u.ID] != nil {
			return marathon.Problemf(errdefs.ErrAlreadyExists, "An app with id [%s] already exists.", u.ID)
		}
		if a, err = t.create(u.ID, u.Given); err != nil {
			return err
		}
		t.posted(by, a)
		d, err = t.deploy([]core.Change{{App: u.ID, To: a}}, by.Force)
		return err
	})
	return a, d, err
}

// Update changes apps in one deployment. With partial, fields that are not given stay as they are. With create, an
// app that does not exist is made, and with force one whose row cannot be read. It reports whether the first one was.
func (s *Services) Update(ctx context.Context, list []Update, partial, create bool, by Asker) (
	d *core.Deployment, created bool, err error) {
	back := map[string]earlier{}
	for _, u := range list { // the store may take its time: nobody waits for it but the asker
		if version, ok := u.Given["version"].(string); ok {
			a, err := s.Version(ctx, u.ID, version)
			back[u.ID] = earlier{a, err}
		}
	}
	err = s.change(ctx, func(t *tx) error {
		t.earlier = back
		changes := []core.Change{}
		for _, u := range list {
			c, err := t.update(u.ID, u.Given, partial, create, by.Force)
			if err != nil {
				return err
			}
			t.apps()[u.ID] = c.To
			t.posted(by, c.To)
			changes = append(changes, c)
		}
		created = len(changes) > 0 && changes[0].From == nil
		d, err = t.deploy(changes, by.Force)
		return err
	})
	return d, created, err
}

// Remove ends an app. One whose row cannot be read is only removed with blind.
func (s *Services) Remove(ctx context.Context, id string, force, blind bool) (d *core.Deployment, err error) {
	err = s.change(ctx, func(t *tx) error {
		a := t.apps()[id]
		if a == nil && !(blind && t.unreadable(id)) {
			return t.noApp(id)
		}
		t.Always()
		d, err = t.deploy([]core.Change{{App: id, From: a}}, force)
		return err
	})
	return d, err
}

// Restart replaces all instances of an app.
func (s *Services) Restart(ctx context.Context, id string, force bool) (d *core.Deployment, err error) {
	err = s.change(ctx, func(t *tx) error {
		a := t.apps()[id]
		if a == nil {
			return t.noApp(id)
		}
		d, err = t.deploy([]core.Change{{App: id, From: a, To: t.restart(a)}}, force)
		return err
	})
	return d, err
}

// Victims says which instances are to end: those of a filter, or of a list of task ids of any form that Marathon had.
type Victims struct {
	core.Filter
	Tasks []string // not nil: these, as far as they exist
	Must  bool     // they must exist, and be of Filter.App if that does
}

// find lists the instances, each once.
func (v *Victims) find(s *core.State) (out []*core.Instance, err error) {
	if v.Tasks == nil {
		return core.Pick(s, v.Filter), nil
	}
	seen := map[kernel.InstanceID]bool{}
	for _, id := range v.Tasks {
		i := core.Find(s, id)
		if v.Must && (i == nil || s.Apps[v.App] != nil && i.Owner != v.App) {
			return nil, marathon.Problemf(errdefs.ErrNotFound, "Task '%s' does not exist", id)
		}
		if i != nil && !seen[i.ID()] {
			seen[i.ID()] = true
			out = append(out, i)
		}
	}
	return out, nil
}

// Kill ends instances at once, so that new ones follow, and returns how they were.
func (s *Services) Kill(ctx context.Context, v Victims) (killed []marathon.Task, err error) {
	machines := machinesOf(s.cfg.Kernel)
	err = s.change(ctx, func(t *tx) error {
		list, err := v.find(t.s.state)
		if err != nil {
			return err
		}
		killed = []marathon.Task{}
		for _, i := range list {
			killed = append(killed, core.TaskOf(t.s.state, i, machines))
		}
		t.killNow(refs(list))
		return nil
	})
	return killed, err
}

// KillAndScale ends instances by a deployment that wants as many fewer.
func (s *Services) KillAndScale(ctx context.Context, v Victims, force bool) (d *core.Deployment, err error) {
	err = s.change(ctx, func(t *tx) error {
		list, err := v.find(t.s.state)
		if err != nil {
			return err
		}
		d, err = t.deploy(t.killAndScale(refs(list)), force)
		return err
	})
	return d, err
}

func refs(list []*core.Instance) (out []core.Ref) {
	for _, i := range list {
		out = append(out, core.Ref{App: i.Owner, Instance: i.ID()})
	}
	return out
}

// deployment finds a running deployment.
func (t *tx) deployment(id string) (*core.Deployment, error) {
	for _, d := range t.s.state.Deployments {
		if d.ID == id {
			return d, nil
		}
	}
	return nil, marathon.Problemf(errdefs.ErrNotFound, "DeploymentPlan %s does not exist", id)
}

// Rollback begins a deployment back to what was before another.
func (s *Services) Rollback(ctx context.Context, id string) (next *core.Deployment, err error) {
	err = s.change(ctx, func(t *tx) error {
		d, err := t.deployment(id)
		if err != nil {
			return err
		}
		t.Always()
		next, err = t.rollback(d)
		return err
	})
	return next, err
}

// Cancel ends a deployment where it stands.
func (s *Services) Cancel(ctx context.Context, id string) error {
	return s.change(ctx, func(t *tx) error {
		d, err := t.deployment(id)
		if err != nil {
			return err
		}
		t.Always()
		t.forgetDeployment(d, nil)
		t.then(func() { t.s.state.Cancel(d) })
		t.events = append(t.events, core.DeploymentEnd("deployment_failed", d, "cancelled by a request", t.now))
		return nil
	})
}

// ResetDelay lets the next launch of an app that has instances left to launch happen now.
func (s *Services) ResetDelay(ctx context.Context, id string) error {
	return s.change(ctx, func(t *tx) error {
		if t.s.state.Apps[id] == nil || !core.Launches(t.s.state, id) {
			return marathon.Problemf(errdefs.ErrNotFound, "Application %s not found in tasks queue.", id)
		}
		t.then(func() { t.s.state.ResetBackoff(id) })
		return nil
	})
}
