package api

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services"
	"github.com/marinaos/marina/internal/services/core"
)

// apps answers about apps.
type apps struct{ *call }

// route routes /v2/apps/...
func (c apps) route(rest []string) error {
	n := len(rest)
	switch {
	case n == 0:
		return c.appsRoot()
	case rest[n-1] == "restart" && n > 1:
		if c.r.Method != http.MethodPost {
			return errMethod
		}
		return c.restartApp(join(rest[:n-1]))
	case rest[n-1] == "tasks" && n > 1:
		return tasks(c).appTasks(rest[:n-1])
	case n > 2 && rest[n-2] == "tasks":
		if c.r.Method != http.MethodDelete {
			return errMethod
		}
		return tasks(c).deleteTask(join(rest[:n-2]), rest[n-1])
	case rest[n-1] == "versions" && n > 1:
		return c.get(func() error { return c.appVersions(join(rest[:n-1])) })
	case n > 2 && rest[n-2] == "versions":
		return c.get(func() error { return c.appVersion(join(rest[:n-2]), rest[n-1]) })
	case rest[n-1] == "*":
		return c.get(func() error { return c.appsBelow(join(rest[:n-1])) })
	}
	id := join(rest)
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.showApp(id)
	case http.MethodPut:
		return c.putApp(id, c.flag("partialUpdate", true), true)
	case http.MethodPatch:
		return c.putApp(id, true, false)
	case http.MethodDelete:
		return c.deleteApp(id)
	}
	return errMethod
}

func join(parts []string) string { return "/" + strings.Join(parts, "/") }

func (c apps) appsRoot() error {
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		return c.listApps()
	case http.MethodPost:
		return c.createApp()
	case http.MethodPut:
		return c.putApps(c.flag("partialUpdate", true), true)
	case http.MethodPatch:
		return c.putApps(true, false)
	}
	return errMethod
}

// embeds reads the embed parameters: prefixes may be left out, unknown values are ignored.
func (c *call) embeds() (e core.Embed) {
	for _, v := range c.r.URL.Query()["embed"] {
		for _, prefix := range []string{"group.apps.", "apps.", "app."} {
			v = strings.TrimPrefix(v, prefix)
		}
		switch v {
		case "tasks":
			e.Tasks = true
		case "lastTaskFailure":
			e.LastTaskFailure = true
		case "failures":
			e.Tasks, e.LastTaskFailure = true, true
		case "taskStats":
			e.TaskStats = true
		case "readiness":
			e.Readiness = true
		}
	}
	return e
}

// infos describes the apps that keep lets through, by id.
func (c *call) infos(embed core.Embed, keep func(*marathon.App) bool) []marathon.AppInfo {
	apps := slices.DeleteFunc(c.services.Apps(), func(a *marathon.App) bool { return !keep(a) || !c.rights.sees(a.ID) })
	return c.services.Describe(apps, embed)
}

func (c apps) listApps() error {
	q := c.r.URL.Query()
	selectors := []marathon.Selector{}
	for _, text := range q["label"] {
		list, err := marathon.ParseSelector(text)
		if err != nil {
			return &marathon.InvalidError{Message: fmt.Sprintf("Can not parse label selector %s. Reason: %s", text, err)}
		}
		selectors = append(selectors, list...)
	}
	id, cmd := strings.ToLower(q.Get("id")), strings.ToLower(q.Get("cmd"))
	apps := c.infos(c.embeds(), func(a *marathon.App) bool {
		if id != "" && !strings.Contains(strings.ToLower(a.ID), id) || cmd != "" && (a.CMD == nil ||
			!strings.Contains(strings.ToLower(*a.CMD), cmd)) {
			return false
		}
		return !slices.ContainsFunc(selectors, func(s marathon.Selector) bool { return !s.Matches(a.Labels) })
	})
	return c.answer(map[string]any{"apps": apps})
}

func (c apps) appsBelow(group string) error {
	below := func(a *marathon.App) bool { return marathon.Under(a.ID, group) }
	return c.answer(map[string]any{"*": c.infos(c.embeds(), below)})
}

func (c apps) showApp(id string) error {
	if err := c.rights.check(access.Read, id); err != nil {
		return err
	}
	e := c.embeds()
	e.Tasks, e.LastTaskFailure = true, true
	a, err := c.services.App(id)
	if err != nil {
		return err
	}
	return c.answer(map[string]any{"app": c.services.Describe([]*marathon.App{a}, e)[0]})
}

// asker names the requester, and how much he insists.
func (c *call) asker() services.Asker {
	ip, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		ip = c.r.RemoteAddr
	}
	return services.Asker{From: ip, Path: c.r.URL.Path, Force: c.flag("force", false)}
}

func (c apps) createApp() error {
	given, err := c.object()
	if err != nil {
		return err
	}
	id, err := idOf(given, "")
	if err != nil {
		return err
	}
	if err := c.rights.check(access.Create, id); err != nil {
		return err
	}
	a, d, err := c.services.Create(c.r.Context(), services.Update{ID: id, Given: given}, c.asker())
	if err != nil {
		return err
	}
	c.out.header.Set("Location", id)
	return c.started(http.StatusCreated, d, marathon.AppInfo{App: a, TasksStaged: new(0), TasksRunning: new(0),
		TasksHealthy:   new(0),
		TasksUnhealthy: new(0), Deployments: []marathon.DeploymentRef{{ID: d.ID}}})
}

// idOf reads the id of an app in a list or a new one.
func idOf(given map[string]any, at string) (string, error) {
	raw, ok := given["id"]
	if !ok || raw == nil {
		return "", marathon.ShapeError(marathon.Bad(at+"/id", "error.path.missing"))
	}
	text, ok := raw.(string)
	if !ok {
		return "", marathon.ShapeError(marathon.Bad(at+"/id", "error.expected.jsstring"))
	}
	id, errs := marathon.AppID(text, "/")
	if len(errs) > 0 {
		return "", marathon.ContentError(marathon.Bad(at+"/id", errs...))
	}
	return id, nil
}

func (c apps) putApp(id string, partial, create bool) error {
	if err := c.rights.mayChange(id); err != nil {
		return err
	}
	given, err := c.object()
	if err != nil {
		return err
	}
	d, created, err := c.services.Update(c.r.Context(), []services.Update{{ID: id, Given: given}}, partial, create,
		c.asker())
	if err != nil {
		return err
	}
	if created {
		return c.started(http.StatusCreated, d, nil)
	}
	return c.started(http.StatusOK, d, nil)
}

func (c apps) putApps(partial, create bool) error {
	list, err := c.list()
	if err != nil {
		return err
	}
	updates, seen := []services.Update{}, map[string]bool{}
	for i, given := range list {
		id, err := idOf(given, fmt.Sprintf("(%d)", i))
		if err != nil {
			return err
		}
		if seen[id] {
			return marathon.ContentError(marathon.Bad(fmt.Sprintf("(%d)/id", i), "stands twice in the list"))
		}
		seen[id] = true
		if err := c.rights.mayChange(id); err != nil {
			return err
		}
		updates = append(updates, services.Update{ID: id, Given: given})
	}
	d, _, err := c.services.Update(c.r.Context(), updates, partial, create, c.asker())
	if err != nil {
		return err
	}
	return c.started(http.StatusOK, d, nil)
}

// deleteApp removes an app, and cancels what is in the way unless force=false is given. One whose row cannot be read
// is only removed with force=true.
func (c apps) deleteApp(id string) error {
	if err := c.rights.check(access.Delete, id); err != nil {
		return err
	}
	d, err := c.services.Remove(c.r.Context(), id, c.flag("force", true), c.flag("force", false))
	if err != nil {
		return err
	}
	return c.started(http.StatusOK, d, nil)
}

func (c apps) restartApp(id string) error {
	if err := c.rights.check(access.Update, id); err != nil {
		return err
	}
	d, err := c.services.Restart(c.r.Context(), id, c.flag("force", false))
	if err != nil {
		return err
	}
	return c.started(http.StatusOK, d, nil)
}

func (c apps) appVersions(id string) error {
	if err := c.rights.check(access.Read, id); err != nil {
		return err
	}
	list, err := c.services.Versions(id)
	if err != nil {
		return err
	}
	slices.Reverse(list)
	return c.answer(map[string]any{"versions": list})
}

func (c apps) appVersion(id, version string) error {
	if err := c.rights.check(access.Read, id); err != nil {
		return err
	}
	a, err := c.services.Version(c.r.Context(), id, version)
	if err != nil {
		return err
	}
	return c.answer(a)
}
