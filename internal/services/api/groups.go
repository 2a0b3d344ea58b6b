package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/marathon"
)

// groups answers about groups.
type groups struct{ *call }

// route routes /v2/groups/... Groups are read from the ids of the apps in them; they cannot be written yet.
func (c groups) route(rest []string) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return marathon.Problemf(errdefs.ErrNotImplemented,
			"Writing groups is not supported by this version: create, update and remove their apps by /v2/apps")
	}
	n := len(rest)
	switch {
	case n > 0 && rest[n-1] == "apps":
		id := join(rest[:n-1])
		return c.answer(c.infos(c.embeds(), func(a *marathon.App) bool { return marathon.Under(a.ID, id) }))
	case n > 0 && rest[n-1] == "versions":
		return c.groupVersions(join(rest[:n-1]))
	case n > 1 && rest[n-2] == "versions":
		return c.groupVersion(join(rest[:n-2]), rest[n-1])
	}
	return c.showGroup(join(rest), c.services.Apps())
}

func noGroup(id string) error {
	return marathon.Problemf(errdefs.ErrNotFound, "Group '%s' does not exist", id)
}

// showGroup answers with a group made of apps.
func (c groups) showGroup(id string, apps []*marathon.App) error {
	apps = slices.DeleteFunc(apps, func(a *marathon.App) bool { return !marathon.Under(a.ID, id) || !c.rights.sees(a.ID) })
	if len(apps) == 0 && id != "/" {
		return noGroup(id)
	}
	t := tree{groups: true, apps: true, infos: map[string]marathon.AppInfo{}}
	if given := c.r.URL.Query()["embed"]; len(given) > 0 {
		t.groups, t.apps = slices.Contains(given, "group.groups"), slices.Contains(given, "group.apps")
	}
	if t.apps {
		for _, info := range c.services.Describe(apps, c.embeds()) {
			t.infos[info.ID] = info
		}
	}
	return c.answer(t.group(id, apps))
}

// tree builds groups out of apps.
type tree struct {
	groups, apps bool
	infos        map[string]marathon.AppInfo // by id, if apps are wanted
}

// group builds the group id of apps that all lie below it, in the order of their ids.
func (t *tree) group(id string, apps []*marathon.App) marathon.GroupInfo {
	g := marathon.GroupInfo{ID: id, Apps: []marathon.AppInfo{}, Pods: []struct{}{}, Groups: []marathon.GroupInfo{},
		Dependencies: []string{},
		Version:      newest(apps)}
	below := map[string][]*marathon.App{}
	for _, a := range apps {
		if marathon.Parent(a.ID) == id {
			if t.apps {
				g.Apps = append(g.Apps, t.infos[a.ID])
			}
			continue
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(a.ID, id), "/")
		name, _, _ := strings.Cut(rest, "/")
		child := strings.TrimSuffix(id, "/") + "/" + name
		below[child] = append(below[child], a)
	}
	if t.groups {
		for _, child := range slices.Sorted(maps.Keys(below)) {
			g.Groups = append(g.Groups, t.group(child, below[child]))
		}
	}
	return g
}

// newest is the latest version among apps: that of the group they make.
func newest(apps []*marathon.App) string {
	v := marathon.Timestamp(time.Unix(0, 0))
	for _, a := range apps {
		v = max(v, a.Version)
	}
	return v
}

// versionsBelow are the versions of each app below a group, oldest first. An app that went away meanwhile has none.
func (c groups) versionsBelow(id string) map[string][]string {
	out := map[string][]string{}
	for _, a := range c.services.Apps() {
		if marathon.Under(a.ID, id) && c.rights.sees(a.ID) {
			out[a.ID], _ = c.services.Versions(a.ID)
		}
	}
	return out
}

// groupVersions are the versions of all apps below a group, the newest first.
func (c groups) groupVersions(id string) error {
	list := []string{}
	below := c.versionsBelow(id)
	for _, versions := range below {
		list = append(list, versions...)
	}
	if len(below) == 0 && id != "/" {
		return noGroup(id)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	slices.Reverse(list)
	return c.answer(list)
}

// groupVersion is a group as it was at a version: of each app that is still there, the newest version up to then.
func (c groups) groupVersion(id, version string) error {
	wanted := map[string]string{}
	known := false
	for app, versions := range c.versionsBelow(id) {
		for _, v := range versions {
			if v <= version {
				wanted[app] = v
			}
			known = known || v == version
		}
	}
	if !known {
		return marathon.Problemf(errdefs.ErrNotFound, "Group '%s' does not exist in version %s", id, version)
	}
	apps := []*marathon.App{}
	for _, app := range slices.Sorted(maps.Keys(wanted)) {
		a, err := c.services.Version(c.r.Context(), app, wanted[app])
		if err != nil {
			return err
		}
		apps = append(apps, a)
	}
	return c.showGroup(id, apps)
}

// pods answers for what there is none of.
func (c *call) pods(rest []string) error {
	id := join(rest)
	switch {
	case c.r.Method != http.MethodGet && c.r.Method != http.MethodHead:
		return marathon.Problemf(errdefs.ErrNotImplemented, "Pods are not supported by this version: use apps")
	case len(rest) == 0 || id == "/::status":
		return c.answer([]struct{}{})
	}
	// Marathon's message is itself JSON.
	return marathon.Problemf(errdefs.ErrNotFound, `{"message": "pod with %s does not exist"}`, strings.Split(id, "::")[0])
}
