package services

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/store"
)

// The rows of this room: apps as they should be, every version of them that is kept, and the running deployments, which name
// the versions they lead from and to.
var (
	appRows        = store.NewTable[App]("apps")
	deploymentRows = store.NewTable[deploymentRow]("deployments")
)

const versionTable = "versions"

func versionRows(app string) store.Table[App] { return store.NewTable[App](versionTable, app) }

type deploymentRow struct {
	ID      string      `json:"id"`
	Version string      `json:"version"`
	Changes []changeRow `json:"changes"`
	Steps   []Step      `json:"steps"`
	Step    int         `json:"step"`
}

type changeRow struct {
	App     string           `json:"app"`
	From    string           `json:"from,omitempty"` // a version; empty: the app is new
	To      string           `json:"to,omitempty"`   // empty: it is removed
	Victims []kernel.GroupID `json:"victims,omitempty"`
}

func rowOf(d *Deployment, step int) (store.Op, error) {
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

// load reads all rows. A row that cannot be read is reported and left alone; a deployment that names a version which is not
// there cannot go on and is an error of kind errdefs.ErrDataLoss.
func (s *Services) load(ctx context.Context) error {
	apps, err := appRows.Read(ctx, s.cfg.Store)
	if err != nil {
		return err
	}
	deployments, err := deploymentRows.Read(ctx, s.cfg.Store)
	if err != nil {
		return err
	}
	for _, b := range slices.Concat(apps.Broken, deployments.Broken) {
		s.cfg.Log.Error("row left alone", "err", b)
	}
	wanted := map[[2]string]*App{}
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
	for id, a := range apps.All() {
		s.last = max(s.last, a.Version)
		s.state.SetApp(id, &a)
	}
	for _, row := range deployments.List {
		d, err := resolve(row.Value, wanted)
		if err != nil {
			return err
		}
		s.state.Deployments = append(s.state.Deployments, d)
		s.last = max(s.last, d.Version)
	}
	slices.SortFunc(s.state.Deployments, func(a, b *Deployment) int { return strings.Compare(a.Version, b.Version) })
	return nil
}

// loadVersions notes which versions there are, and keeps those that are wanted.
func (s *Services) loadVersions(ctx context.Context, wanted map[[2]string]*App) error {
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
		s.last = max(s.last, version)
		if _, ok := wanted[[2]string{app, version}]; ok {
			row, err := versionRows(app).Decode(item)
			if err != nil {
				return err
			}
			wanted[[2]string{app, version}] = &row.Value
		}
	}
	return nil
}

func resolve(r deploymentRow, versions map[[2]string]*App) (*Deployment, error) {
	d := &Deployment{ID: r.ID, Version: r.Version, Steps: r.Steps, Step: r.Step}
	for _, c := range r.Changes {
		k := Change{App: c.App, Victims: c.Victims}
		for _, side := range []struct {
			version string
			app     **App
		}{{c.From, &k.From}, {c.To, &k.To}} {
			if side.version == "" {
				continue
			}
			if *side.app = versions[[2]string{c.App, side.version}]; *side.app == nil {
				return nil, fmt.Errorf("deployment %s: version %s of app %s is missing: %w", r.ID, side.version, c.App, errdefs.ErrDataLoss)
			}
		}
		d.Changes = append(d.Changes, k)
	}
	return d, nil
}
