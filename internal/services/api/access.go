package api

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services"
	"github.com/marinaos/marina/internal/services/core"
)

// rights asks access on behalf of one request.
type rights struct {
	ctx      context.Context // the request's, with its principal
	access   access.Authorizer
	services *services.Services
}

// check asks whether the asker may do something to each of the apps, or to all apps below a group.
func (g rights) check(a access.Action, ids ...string) error {
	for _, id := range ids {
		if err := access.Check(g.ctx, g.access, a, access.Services.Of(id)); err != nil {
			return err
		}
	}
	return nil
}

// sees reports whether the asker may read an app.
func (g rights) sees(id string) bool { return g.check(access.Read, id) == nil }

// mayChange asks about making an app, or changing it if it is there.
func (g rights) mayChange(id string) error {
	if _, err := g.services.App(id); err != nil {
		return g.check(access.Create, id)
	}
	return g.check(access.Update, id)
}

// mayEnd asks about ending instances: of an app, of all apps below a group, or of tasks by their ids.
func (g rights) mayEnd(v services.Victims) error {
	if v.Tasks == nil {
		return g.check(access.Update, cmp.Or(v.App, v.Below))
	}
	apps := []string{}
	if v.App != "" {
		apps = append(apps, v.App)
	}
	for _, task := range v.Tasks {
		if group, ok := marathon.GroupOfTask(task); ok {
			name, _, _ := strings.Cut(group, ".instance-")
			apps = append(apps, "/"+strings.ReplaceAll(name, "_", "/"))
		}
	}
	slices.Sort(apps)
	return g.check(access.Update, slices.Compact(apps)...)
}

// mayTouch asks about all apps of a running deployment. One that is not there is for its handler to say.
func (g rights) mayTouch(deployment string) error {
	for _, d := range g.services.Deployments() {
		if d.ID == deployment {
			return g.check(access.Update, d.AffectedApps...)
		}
	}
	return nil
}

// all lets a handler answer whoever may read every app.
func (g rights) all(f func() error) func() error {
	return func() error {
		if err := g.check(access.Read, "/"); err != nil {
			return err
		}
		return f()
	}
}

// tasks are those that the asker may see.
func (g rights) tasks(f core.Filter) []marathon.Task {
	return slices.DeleteFunc(g.services.Tasks(f), func(t marathon.Task) bool { return !g.sees(t.AppID) })
}
