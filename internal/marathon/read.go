package marathon

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// InvalidError is a request that is understood and refused. Message and Details are Marathon's.
type InvalidError struct {
	Message string
	Details []Detail
}

// Error names every place and what is wrong there.
func (e *InvalidError) Error() string {
	parts := []string{}
	for _, d := range e.Details {
		parts = append(parts, d.Path+": "+strings.Join(d.Errors, ", "))
	}
	return e.Message + ": " + strings.Join(parts, "; ")
}

// The messages of an InvalidError.
const (
	WrongShape   = "Invalid JSON"
	wrongContent = "Object is not valid"
)

// ShapeError refuses what is not of an app's form, ContentError what an app cannot mean.
func ShapeError(d []Detail) error   { return &InvalidError{WrongShape, byPath(d)} }
func ContentError(d []Detail) error { return &InvalidError{wrongContent, byPath(d)} }

// byPath sorts details and joins those of one path, so that the same input always gets the same answer.
func byPath(in []Detail) []Detail {
	slices.SortStableFunc(in, func(a, b Detail) int { return strings.Compare(a.Path, b.Path) })
	out := []Detail{}
	for _, d := range in[:min(len(in), maxDetails)] {
		if n := len(out); n > 0 && out[n-1].Path == d.Path {
			out[n-1].Errors = append(out[n-1].Errors, d.Errors...)
			continue
		}
		out = append(out, d)
	}
	return out
}

func notBuilt(what string) string {
	return what + " is not supported by this version: leave it out"
}

// unbuilt are fields of an app that Marathon knows and this version does not build, as paths. An empty value asks for
// nothing and is let through.
var unbuilt = []string{"fetch", "uris", "residency", "secrets", "readinessChecks", "check", "executorResources",
	"ipAddress",
	"container/linuxInfo", "container/docker/pullConfig", "container/docker/credential", "container/docker/parameters",
	"container/docker/privileged"}

func refuseUnbuilt(given map[string]any) (out []Detail) {
	for _, path := range unbuilt {
		var v any = given
		for _, name := range strings.Split(path, "/") {
			m, _ := v.(map[string]any)
			v = m[name]
		}
		switch v := v.(type) {
		case nil:
			continue
		case []any:
			if len(v) == 0 {
				continue
			}
		case map[string]any:
			if len(v) == 0 {
				continue
			}
		case bool:
			if !v {
				continue
			}
		}
		out = append(out, Detail{"/" + path, []string{notBuilt(path[strings.LastIndex(path, "/")+1:])}})
	}
	return out
}

// Read turns a parsed request into an app. With old and partial, fields that are not given keep old's values; given
// ones replace them whole. The answer is folded but not validated.
func Read(given map[string]any, old *App, partial bool) (*App, error) {
	if errs := refuseUnbuilt(given); len(errs) > 0 {
		return nil, ContentError(errs)
	}
	tree := map[string]any{}
	if old != nil && partial {
		tree = must(Parse(must(json.Marshal(old)))).(map[string]any)
		for _, name := range superseded(given) {
			delete(tree, name)
		}
	}
	maps.DeleteFunc(given, func(_ string, v any) bool { return v == nil })
	maps.Copy(tree, given)
	delete(tree, "version")
	delete(tree, "versionInfo")
	clean, errs := conform(tree, typeOf[App](), "", "")
	if len(errs) > 0 {
		return nil, ShapeError(errs)
	}
	a, err := into[App](clean)
	if err != nil {
		return nil, err
	}
	if errs := a.fold(); len(errs) > 0 {
		return nil, ContentError(errs)
	}
	return a, nil
}

// superseded lists the fields of an app that a partial update resets although it does not give them: those that only
// make sense with what it replaces.
func superseded(given map[string]any) []string {
	out := []string{"executorResources", "resourceLimits"}
	has := func(name string) bool { return given[name] != nil }
	if has("cmd") && !has("args") {
		out = append(out, "args")
	}
	if list, _ := given["args"].([]any); len(list) > 0 && !has("cmd") {
		out = append(out, "cmd")
	}
	container, _ := given["container"].(map[string]any)
	docker, _ := container["docker"].(map[string]any)
	if docker["network"] != nil && !has("networks") {
		out = append(out, "networks", "portDefinitions")
	}
	if has("networks") || has("ports") {
		out = append(out, "portDefinitions")
	}
	return out
}

// fold brings the deprecated spellings and what is left open into the one form that is kept and shown.
func (a *App) fold() (errs []Detail) {
	a.foldDocker()
	if len(a.Networks) == 0 {
		a.Networks = []Network{{Mode: "host"}}
	}
	if a.Ports != nil && a.PortDefinitions == nil && a.HostNetwork() {
		a.PortDefinitions = []PortDefinition{}
		for _, p := range a.Ports {
			a.PortDefinitions = append(a.PortDefinitions, PortDefinition{Port: p, Protocol: "tcp", Labels: map[string]string{}})
		}
	} else if a.Ports != nil && a.HostNetwork() && !slices.EqualFunc(a.Ports, a.PortDefinitions, func(n int,
		p PortDefinition) bool {
		return n == p.Port
	}) {
		errs = append(errs, Detail{"/ports", []string{"cannot specify both ports and port definitions"}})
	}
	a.Ports = nil
	name := "default"
	if a.HostNetwork() {
		if a.PortDefinitions == nil {
			a.PortDefinitions = []PortDefinition{{Protocol: "tcp", Name: &name, Labels: map[string]string{}}}
		}
		if a.Container != nil && len(a.Container.PortMappings) == 0 {
			a.Container.PortMappings = nil
		}
	} else {
		a.RequirePorts = false
		if a.Container == nil {
			a.Container = &Container{Type: "MESOS", Volumes: []Volume{}}
		}
		if a.Container.PortMappings == nil {
			a.Container.PortMappings = []PortMapping{{Protocol: "tcp", Name: &name, Labels: map[string]string{}}}
		}
		for i := range a.Container.PortMappings {
			if m := &a.Container.PortMappings[i]; m.HostPort == nil {
				m.HostPort = new(0)
			}
		}
		if len(a.PortDefinitions) == 0 {
			a.PortDefinitions = nil
		}
	}
	for i, c := range a.Constraints {
		if len(c) > 1 {
			a.Constraints[i][1] = strings.ToUpper(c[1])
		}
	}
	for i := range a.HealthChecks {
		a.HealthChecks[i].fold()
	}
	return errs
}

func (a *App) foldDocker() {
	if a.Container == nil || a.Container.Docker == nil {
		return
	}
	d := a.Container.Docker
	if len(a.Networks) == 0 {
		switch d.Network {
		case "HOST", "NONE":
			a.Networks = []Network{{Mode: "host"}}
		case "BRIDGE":
			a.Networks = []Network{{Mode: "container/bridge"}}
		case "USER":
			a.Networks = []Network{{Mode: "container"}}
		}
	}
	if a.Container.PortMappings == nil && d.PortMappings != nil {
		a.Container.PortMappings = d.PortMappings
	}
	d.Network, d.PortMappings = "", nil
}

// fold fills in what a check of its protocol leaves open.
func (h *HealthCheck) fold() {
	if strings.Contains(h.Protocol, "HTTP") && h.Path == nil {
		h.Path = new("/")
	}
	if h.Protocol != "COMMAND" && h.Port == nil && h.PortIndex == nil {
		h.PortIndex = new(0)
	}
}

// AssignPorts gives every service port that was left open a number: that of the old version at the same place, else the
// lowest of [first, last] that no app uses.
func (a *App) AssignPorts(old *App, used map[int]string, first, last int) error {
	taken := map[int]bool{}
	for _, p := range a.ServicePorts() {
		taken[p] = true
	}
	kept := []int{}
	if old != nil {
		kept = old.ServicePorts()
	}
	next := first
	assign := func(i int, p *int) error {
		if *p != 0 {
			return nil
		}
		if i < len(kept) && kept[i] != 0 && !taken[kept[i]] {
			*p = kept[i]
			taken[*p] = true
			return nil
		}
		for ; next <= last; next++ {
			if used[next] == "" && !taken[next] && !slices.Contains(kept, next) {
				*p = next
				taken[next] = true
				return nil
			}
		}
		return ContentError([]Detail{{"/portDefinitions",
			[]string{fmt.Sprintf("All ports in the range [%d-%d) are already in use", first, last+1)}}})
	}
	for i := range a.PortDefinitions {
		if err := assign(i, &a.PortDefinitions[i].Port); err != nil {
			return err
		}
	}
	if a.Container != nil {
		for i := range a.Container.PortMappings {
			if err := assign(i, &a.Container.PortMappings[i].ServicePort); err != nil {
				return err
			}
		}
	}
	return nil
}

// FoldDependencies makes what the app depends on absolute, each named once.
func (a *App) FoldDependencies() (errs []Detail) {
	out := []string{}
	seen := map[string]bool{}
	for i, d := range a.Dependencies {
		dep, bad := AppID(d, Parent(a.ID))
		if len(bad) > 0 {
			errs = append(errs, Detail{fmt.Sprintf("/dependencies(%d)", i), bad})
		}
		if !seen[dep] {
			seen[dep] = true
			out = append(out, dep)
		}
	}
	if a.Dependencies != nil {
		a.Dependencies = out
	}
	return errs
}
