package core

import (
	"slices"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/definition"
)

// VersionView is a minor that clusters can have.
type VersionView struct {
	Minor    string `json:"minor"`             // "1.37"
	Release  string `json:"release,omitempty"` // "v1.37.2", if some machine has its programs
	Machines int    `json:"machines"`          // that have them
	Default  bool   `json:"default,omitempty"`
}

// Versions tells which minors there are, and how many machines have their programs.
func Versions(agents []kernel.AgentView) []VersionView {
	var out []VersionView
	for n, minor := range definition.Minors {
		v := VersionView{Minor: minor, Default: n == 0}
		for _, a := range agents {
			if release, ok := a.Bundles[bundle(minor)]; ok {
				v.Machines++
				v.Release = max(v.Release, release)
			}
		}
		out = append(out, v)
	}
	return out
}

// Release returns the release of a minor that the machines have; "": none has it.
func Release(agents []kernel.AgentView, minor string) string {
	all := Versions(agents)
	if n := slices.IndexFunc(all, func(v VersionView) bool { return v.Minor == minor }); n >= 0 {
		return all[n].Release
	}
	return ""
}
