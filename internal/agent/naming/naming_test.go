package naming

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/kernel"
)

func TestNamesOfContainersAreSafeAndDifferent(t *testing.T) {
	safe := regexp.MustCompile(`^[a-zA-Z0-9](-?[a-zA-Z0-9])*$`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		boot := rapid.SampledFrom([]string{"boot-1", "boot-2"})
		ba, bb := boot.Draw(t, "boot of a"), boot.Draw(t, "boot of b")
		ca, cb := Container(kernel.TaskID(a), ba), Container(kernel.TaskID(b), bb)
		if len(ca) > 64 || !safe.MatchString(ca) {
			t.Errorf("%q is no safe name", ca)
		}
		if (ca == cb) != (a == b && ba == bb) {
			t.Errorf("%q in %s and %q in %s: %s and %s", a, ba, b, bb, ca, cb)
		}
		if ga := Instance(kernel.InstanceID(a)); len(ga) != 32 || !safe.MatchString(ga) || (ga == Instance(kernel.InstanceID(b))) != (a == b) {
			t.Errorf("group %q is named %q", a, ga)
		}
	})
}

func TestIDsThatCanNameADirectoryAreTold(t *testing.T) {
	for id, want := range map[kernel.TaskID]bool{
		"web.1": true, "a_b~c@d+e=f": true, "web.instance-0a1b._app.1": true,
		"": false, ".": false, "..": false, "-rf": false, "a/b": false, "a\x00b": false, "a b": false, "ä": false,
		kernel.TaskID(strings.Repeat("x", MaxTask)): true, kernel.TaskID(strings.Repeat("x", MaxTask+1)): false,
	} {
		if got := IsTask(id); got != want {
			t.Errorf("task %q: got %v, want %v", id, got, want)
		}
	}
	for name, want := range map[string]bool{"ca.crt": true, "-x": true, "": false, ".": false, "..": false, ".hidden": false, "a/b": false} {
		if got := IsFile(name); got != want {
			t.Errorf("file %q: got %v, want %v", name, got, want)
		}
	}
}
