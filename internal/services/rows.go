package services

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services/core"
	"github.com/marinaos/marina/internal/store"
)

// The rows of this room: apps as they should be, every version of them that is kept, and the running deployments,
// which name the versions they lead from and to.
var (
	appRows        = store.NewTable[marathon.App]("apps")
	deploymentRows = store.NewTable[deploymentRow]("deployments")
)

const versionTable = "versions"

func versionRows(app string) store.Table[marathon.App] {
	return store.NewTable[marathon.App](versionTable, app)
}

type deploymentRow struct {
	ID      string          `json:"id"`
	Version string          `json:"version"`
	Changes []changeRow     `json:"changes"`
	Steps   []marathon.Step `json:"steps"`
	Step    int             `json:"step"`
}

type changeRow struct {
	App     string              `json:"app"`
	From    string              `json:"from,omitempty"` // a version; empty: the app is new
	To      string              `json:"to,omitempty"`   // empty: it is removed
	Victims []kernel.InstanceID `json:"victims,omitempty"`
}

func rowOf(d *core.Deployment, step int) (store.Op, error) {
	r := deploymentRow{ID: d.ID, Version: d.Version, Steps: d.Steps, Step: step}
	for _, c := range d.Changes {
		k := changeRow{App: c.App, Victims: c.Victims}
		if c.From != nil {
			k.From = c.From.Version
		}
		if c.To != nil {
			k.To = c.To.Version
		}
		r.Changes = append(r.Changes, k)
	}
	return deploymentRows.Put(d.ID, r)
}

// load reads all rows. Apps and deployments of which one cannot be read are set aside, and everything else goes on.
func (s *Services) load(ctx context.Context) error {
	apps, err := appRows.Read(ctx, s.cfg.Store)
	if err != nil {
		return err
	}
	deployments, err := deploymentRows.Read(ctx, s.cfg.Store)
	if err != nil {
		return err
	}
	wanted := map[[2]string]*marathon.App{}
	for _, d := range deployments.All() {
		for _, c := range d.Changes {
			wanted[[2]string{c.App, c.From}], wanted[[2]string{c.App, c.To}] = nil, nil
		}
	}
	if err := s.loadVersions(ctx, wanted); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loadApps(apps)
	s.loadDeployments(deployments, wanted)
	for _, a := range s.state.Alarms() {
		s.cfg.Log.Error("set aside", "subject", a.Subject, "problem", a.Problem)
	}
	return nil
}

func (s *Services) loadApps(rows *store.Rows[marathon.App]) {
	now := time.Now()
	for _, b := range rows.Broken {
		id, _ := appRows.ID(b.Item.Key) // Rows has none without
		s.state.SetUnreadable(id, b.Err.Error(), now)
	}
	for id, a := range rows.All() {
		if err := a.Intact(id); err != nil {
			s.state.SetUnreadable(id, err.Error(), now)
			continue
		}
		s.last = max(s.last, a.Version)
		s.state.SetApp(id, &a)
	}
}

func (s *Services) loadDeployments(rows *store.Rows[deploymentRow], versions map[[2]string]*marathon.App) {
	now := time.Now()
	aside := func(d *core.Deployment, err error) {
		d.Unreadable = true
		s.state.Park(d, "it cannot be read: "+err.Error(), now)
	}
	for _, row := range rows.List {
		d, err := resolve(row.Value, versions)
		if err == nil {
			err = d.Intact(row.ID)
		}
		if d.ID = row.ID; err != nil {
			aside(d, err)
		}
		s.state.Deployments = append(s.state.Deployments, d)
		if _, ok := marathon.ParseTimestamp(d.Version); ok {
			s.last = max(s.last, d.Version)
		}
	}
	byAge := func(a, b *core.Deployment) int { return strings.Compare(a.Version, b.Version) }
	slices.SortStableFunc(s.state.Deployments, byAge)
	for _, b := range rows.Broken {
		d := &core.Deployment{}
		d.ID, _ = deploymentRows.ID(b.Item.Key) // Rows has none without
		aside(d, b.Err)
		d.Changes = unowned(s)
		s.state.Deployments = append(s.state.Deployments, d)
	}
}

// unclaimed are the apps that only a deployment of which nothing is known can still need: they have versions, but no
// row, and no deployment that is known names them. It removes them.
func unowned(s *Services) (out []core.Change) {
	for _, id := range sortedKeys(s.versions) {
		_, unreadable := s.state.Unreadable()[id]
		names := func(d *core.Deployment) bool { return len(d.Steps) > 0 && d.Change(id) != nil }
		named := slices.ContainsFunc(s.state.Deployments, names)
		if s.state.Apps[id] == nil && !unreadable && !named {
			out = append(out, core.Change{App: id})
		}
	}
	return out
}

// loadVersions notes which versions there are, and keeps those that are wanted and can be read.
func (s *Services) loadVersions(ctx context.Context, wanted map[[2]string]*marathon.App) error {
	snap, err := s.cfg.Store.Snapshot(ctx, store.Prefix(versionTable))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range snap.Items {
		parts, err := store.Segments(item.Key)
		if err != nil || len(parts) != 3 {
			s.cfg.Log.Error("row left alone", "row", item.Key, "err", err)
			continue
		}
		app, version := parts[1], parts[2]
		s.versions[app] = append(s.versions[app], version)
		if _, ok := marathon.ParseTimestamp(version); ok {
			s.last = max(s.last, version)
		}
		if _, ok := wanted[[2]string{app, version}]; ok {
			row, err := versionRows(app).Decode(item)
			if err == nil {
				err = row.Value.Intact(app)
			}
			if err != nil {
				s.cfg.Log.Error("row left alone", "row", item.Key, "err", err)
				continue
			}
			wanted[[2]string{app, version}] = &row.Value
		}
	}
	return nil
}

// resolve finds the versions that a deployment's row names. With the error that one is missing or cannot be read it
// returns what there is.
func resolve(r deploymentRow, versions map[[2]string]*marathon.App) (*core.Deployment, error) {
	d := &core.Deployment{ID: r.ID, Version: r.Version, Steps: r.Steps, Step: r.Step}
	var missing error
	for _, c := range r.Changes {
		k := core.Change{App: c.App, Victims: c.Victims}
		for _, side := range []struct {
			version string
			app     **marathon.App
		}{{c.From, &k.From}, {c.To, &k.To}} {
			if side.version == "" {
				continue
			}
			if *side.app = versions[[2]string{c.App, side.version}]; *side.app == nil && missing == nil {
				missing = fmt.Errorf("version %s of app %s is missing or cannot be read: %w", side.version, c.App,
					errdefs.ErrDataLoss)
			}
		}
		d.Changes = append(d.Changes, k)
	}
	slices.SortFunc(d.Changes, func(a, b core.Change) int { return strings.Compare(a.App, b.App) })
	return d, missing
}
