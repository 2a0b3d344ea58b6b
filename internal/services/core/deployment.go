package core

import (
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// MaxDeployments bounds the deployments that run at once.
const MaxDeployments = 100

// Deployment leads apps from what they were to what they should be, step by step. Only its Step changes, and only
// once that is durable.
type Deployment struct {
	ID      string
	Version string
	Changes []Change // sorted by app
	Steps   []marathon.Step
	Step    int // the current one, from 0

	Parked     string // why it was set aside and goes no further; empty: it was not
	Unreadable bool   // it was, because its row or one that it names cannot be read: what is known of it is not all
}

// Change replaces one app's definition in a deployment. From is nil for a new app, To for a removed one.
type Change struct {
	App      string
	From, To *marathon.App
	Victims  []kernel.InstanceID // instances that are to go first
}

// Transition says that a deployment has come to another step; len(Steps) means that it is finished.
type Transition struct {
	Deployment *Deployment
	Step       int
}

// Finished reports whether the deployment is done.
func (t Transition) Finished() bool { return t.Step >= len(t.Deployment.Steps) }

// NewDeployment plans the changes: removed apps are stopped, new ones started, then apps are scaled or restarted,
// those that others depend on first. root is all apps as they should be afterwards; mixed tells whether an app has
// instances of a config version other than the given one.
func NewDeployment(
	id, version string, changes []Change, root map[string]*marathon.App, mixed func(app, config string) bool,
) *Deployment {
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.App, b.App) })
	d := &Deployment{ID: id, Version: version, Changes: changes}
	stop, start, byDepth := marathon.Step{}, marathon.Step{}, map[int]*marathon.Step{}
	depends := newDependencies(root)
	deepest := 0
	for _, c := range changes {
		if c.To == nil {
			stop.Actions = append(stop.Actions, marathon.Action{Action: marathon.StopApplication, App: c.App})
			continue
		}
		if c.From == nil {
			start.Actions = append(start.Actions, marathon.Action{Action: marathon.StartApplication, App: c.App})
		}
		action := marathon.ScaleApplication
		if c.To.Instances > 0 && (c.From != nil && c.From.Config() != c.To.Config() || mixed(c.App, c.To.Config())) {
			action = marathon.RestartApplication
		}
		if action == marathon.ScaleApplication && c.From == nil && c.To.Instances == 0 {
			continue
		}
		k := depends.depth(c.App)
		deepest = max(deepest, k)
		if byDepth[k] == nil {
			byDepth[k] = &marathon.Step{}
		}
		byDepth[k].Actions = append(byDepth[k].Actions, marathon.Action{Action: action, App: c.App})
	}
	for k := 0; k <= deepest; k++ {
		if byDepth[k] == nil {
			byDepth[k] = &marathon.Step{}
		}
	}
	d.add(stop)
	d.add(start)
	for k := range deepest + 1 {
		d.add(*byDepth[k])
	}
	return d
}

func (d *Deployment) add(s marathon.Step) {
	if len(s.Actions) > 0 {
		d.Steps = append(d.Steps, s)
	}
}

// Change finds the deployment's part that is about an app.
func (d *Deployment) Change(app string) *Change {
	k, ok := slices.BinarySearchFunc(d.Changes, app, func(c Change, id string) int { return strings.Compare(c.App, id) })
	if !ok {
		return nil
	}
	return &d.Changes[k]
}

// actions tells what the current step does with an app, and whether a later one does something.
func (d *Deployment) actions(app string) (now string, later bool) {
	for k := d.Step; k < len(d.Steps); k++ {
		for _, a := range d.Steps[k].Actions {
			if a.App == app {
				if k == d.Step {
					now = a.Action
				} else {
					later = true
				}
			}
		}
	}
	return now, later
}
