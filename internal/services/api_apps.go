package services

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// apps routes /v2/apps/...
func (c *call) apps(rest []string) error {
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
		return c.appTasks(rest[:n-1])
	case n > 2 && rest[n-2] == "tasks":
		if c.r.Method != http.MethodDelete {
			return errMethod
		}
		return c.deleteTask(join(rest[:n-2]), rest[n-1])
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

func (c *call) appsRoot() error {
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

// noApp says why there is no definition of an app: it does not exist, or its row cannot be read; kind is of the second.
func (s *State) noApp(id string, kind error) error {
	if why, ok := s.unreadable[id]; ok {
		return problemf(kind, "The definition of app '%s' cannot be read (%s), and what runs of it is left alone. You can %s", id, why, wayOut(id))
	}
	return problemf(errdefs.ErrNotFound, "App '%s' does not exist", id)
}

func (c *call) noApp(id string) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.state.noApp(id, errdefs.ErrDataLoss)
}

// noApp refuses a change of an app of which there is no definition.
func (t *tx) noApp(id string) error { return t.s.state.noApp(id, errdefs.ErrAlreadyExists) }

func (t *tx) unreadable(id string) bool {
	_, ok := t.s.state.unreadable[id]
	return ok
}

// embeds reads the embed parameters: prefixes may be left out, unknown values are ignored.
func (c *call) embeds() (e Embed) {
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

// machines are the kernel's agents by id, for the addresses of tasks.
func (c *call) machines() map[kernel.AgentID]kernel.AgentView {
	out := map[kernel.AgentID]kernel.AgentView{}
	for _, a := range c.cfg.Kernel.Agents() {
		out[a.ID] = a
	}
	return out
}

// infos describes the apps that keep lets through, by id.
func (c *call) infos(embed Embed, keep func(*marathon.App) bool) []marathon.AppInfo {
	machines := c.machines()
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := []marathon.AppInfo{}
	for _, id := range sortedKeys(c.state.Apps) {
		if a := c.state.Apps[id]; keep(a) {
			out = append(out, c.state.Info(a, embed, machines, time.Now()))
		}
	}
	return out
}

func (c *call) listApps() error {
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
		if id != "" && !strings.Contains(strings.ToLower(a.ID), id) || cmd != "" && (a.CMD == nil || !strings.Contains(strings.ToLower(*a.CMD), cmd)) {
			return false
		}
		return !slices.ContainsFunc(selectors, func(s marathon.Selector) bool { return !s.Matches(a.Labels) })
	})
	return c.answer(map[string]any{"apps": apps})
}

func (c *call) appsBelow(group string) error {
	return c.answer(map[string]any{"*": c.infos(c.embeds(), func(a *marathon.App) bool { return marathon.Under(a.ID, group) })})
}

func (c *call) showApp(id string) error {
	e := c.embeds()
	e.Tasks, e.LastTaskFailure = true, true
	list := c.infos(e, func(a *marathon.App) bool { return a.ID == id })
	if len(list) == 0 {
		return c.noApp(id)
	}
	return c.answer(map[string]any{"app": list[0]})
}

// posted is the event that tells of an accepted change.
func (c *call) posted(t *tx, a *marathon.App) {
	ip, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		ip = c.r.RemoteAddr
	}
	t.events = append(t.events, marathon.Event{Type: "api_post_event", Data: marathon.APIPost{Head: marathon.NewHead("api_post_event", t.now), ClientIP: ip, URI: c.r.URL.Path, AppDefinition: a}})
}

func (c *call) createApp() error {
	given, err := c.object()
	if err != nil {
		return err
	}
	id, err := idOf(given, "")
	if err != nil {
		return err
	}
	var a *marathon.App
	var d *Deployment
	err = c.change(func(t *tx) (err error) {
		if t.unreadable(id) {
			return t.noApp(id)
		}
		if t.apps()[id] != nil {
			return problemf(errdefs.ErrAlreadyExists, "An app with id [%s] already exists.", id)
		}
		if a, err = t.create(id, given); err != nil {
			return err
		}
		c.posted(t, a)
		d, err = t.deploy([]Change{{App: id, To: a}}, c.flag("force", false))
		return err
	})
	if err != nil {
		return err
	}
	c.out.header.Set("Location", id)
	return c.started(http.StatusCreated, d, marathon.AppInfo{App: a, TasksStaged: new(0), TasksRunning: new(0), TasksHealthy: new(0),
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

// create makes the first version of an app. Its id may be no group, and no group above it may be an app.
func (t *tx) create(id string, given map[string]any) (*marathon.App, error) {
	if _, errs := marathon.AppID(id, "/"); len(errs) > 0 {
		return nil, marathon.ContentError(marathon.Bad("/id", errs...))
	}
	same := func(other string) bool { return marathon.Under(id, other) || marathon.Under(other, id) }
	for other := range t.apps() {
		if same(other) {
			return nil, marathon.ContentError(marathon.Bad("/id", "Groups and Applications may not have the same identifier."))
		}
	}
	for other := range t.s.state.unreadable {
		if same(other) {
			return nil, marathon.ContentError(marathon.Bad("/id", "Groups and Applications may not have the same identifier."))
		}
	}
	return t.prepare(id, given, nil, false)
}

// update is one app of a PUT or PATCH. One whose row cannot be read is made anew by a PUT with force.
func (t *tx) update(id string, given map[string]any, partial, create, force bool) (Change, error) {
	old := t.apps()[id]
	if old == nil && (!create || t.unreadable(id) && !force) {
		return Change{}, t.noApp(id)
	}
	var a *marathon.App
	var err error
	if old == nil {
		a, err = t.create(id, given)
	} else {
		a, err = t.prepare(id, given, old, partial)
	}
	return Change{App: id, From: old, To: a}, err
}

func (c *call) putApp(id string, partial, create bool) error {
	given, err := c.object()
	if err != nil {
		return err
	}
	var d *Deployment
	status := http.StatusOK
	back := map[string]earlier{}
	c.readEarlier(back, id, given)
	err = c.change(func(t *tx) error {
		t.earlier = back
		change, err := t.update(id, given, partial, create, c.flag("force", false))
		if err != nil {
			return err
		}
		if change.From == nil {
			status = http.StatusCreated
		}
		c.posted(t, change.To)
		d, err = t.deploy([]Change{change}, c.flag("force", false))
		return err
	})
	if err != nil {
		return err
	}
	return c.started(status, d, nil)
}

func (c *call) putApps(partial, create bool) error {
	list, err := c.list()
	if err != nil {
		return err
	}
	ids, back := []string{}, map[string]earlier{}
	for i, given := range list {
		id, err := idOf(given, fmt.Sprintf("(%d)", i))
		if err != nil {
			return err
		}
		if slices.Contains(ids, id) {
			return marathon.ContentError(marathon.Bad(fmt.Sprintf("(%d)/id", i), "stands twice in the list"))
		}
		ids = append(ids, id)
		c.readEarlier(back, id, given)
	}
	var d *Deployment
	err = c.change(func(t *tx) error {
		t.earlier = back
		changes := []Change{}
		for i, given := range list {
			change, err := t.update(ids[i], given, partial, create, c.flag("force", false))
			if err != nil {
				return err
			}
			t.apps()[ids[i]] = change.To
			c.posted(t, change.To)
			changes = append(changes, change)
		}
		d, err = t.deploy(changes, c.flag("force", false))
		return err
	})
	if err != nil {
		return err
	}
	return c.started(http.StatusOK, d, nil)
}

// deleteApp removes an app. One whose row cannot be read is only removed if force is given.
func (c *call) deleteApp(id string) error {
	return c.changeApp(id, true, func(t *tx, a *marathon.App) (*marathon.App, error) {
		if a == nil && !(t.unreadable(id) && c.flag("force", false)) {
			return nil, t.noApp(id)
		}
		return nil, nil
	})
}

func (c *call) restartApp(id string) error {
	return c.changeApp(id, false, func(t *tx, a *marathon.App) (*marathon.App, error) {
		if a == nil {
			return nil, t.noApp(id)
		}
		return t.restart(a), nil
	})
}

// changeApp deploys what f makes of an app, nil if there is no definition of it.
func (c *call) changeApp(id string, force bool, f func(*tx, *marathon.App) (*marathon.App, error)) error {
	var d *Deployment
	err := c.change(func(t *tx) error {
		a := t.apps()[id]
		next, err := f(t, a)
		if err != nil {
			return err
		}
		d, err = t.deploy([]Change{{App: id, From: a, To: next}}, c.flag("force", force))
		return err
	})
	if err != nil {
		return err
	}
	return c.started(http.StatusOK, d, nil)
}

func (c *call) appVersions(id string) error {
	c.mu.RLock()
	list := slices.Clone(c.versions[id])
	found := c.state.hasVersions(id)
	c.mu.RUnlock()
	if !found {
		return c.noApp(id)
	}
	slices.Reverse(list)
	return c.answer(map[string]any{"versions": orEmpty(list)})
}

func (c *call) appVersion(id, version string) error {
	a, err := c.readVersion(c.r.Context(), id, version)
	if err != nil {
		return err
	}
	return c.answer(a)
}

func (s *Services) readVersion(ctx context.Context, id, version string) (*marathon.App, error) {
	s.mu.RLock()
	found, missing := s.state.hasVersions(id), s.state.noApp(id, errdefs.ErrDataLoss)
	s.mu.RUnlock()
	if !found {
		return nil, missing
	}
	row, err := versionRows(id).Get(ctx, s.cfg.Store, version)
	switch {
	case errdefs.IsNotFound(err):
		return nil, problemf(errdefs.ErrNotFound, "App '%s' does not exist in version %s", id, version)
	case errdefs.IsDataLoss(err):
		return nil, problemf(errdefs.ErrDataLoss, "Version %s of app '%s' cannot be read", version, id)
	case err != nil:
		return nil, err
	}
	return &row.Value, nil
}

// readEarlier notes the version that a change goes back to, if it does. The store may take its time: nobody waits for it but the asker.
func (c *call) readEarlier(into map[string]earlier, id string, given map[string]any) {
	if version, ok := given["version"].(string); ok {
		a, err := c.readVersion(c.r.Context(), id, version)
		into[id] = earlier{a, err}
	}
}

// hasVersions reports whether an app is there, be it that only its versions can be read.
func (s *State) hasVersions(id string) bool {
	_, unreadable := s.unreadable[id]
	return unreadable || s.Apps[id] != nil
}
