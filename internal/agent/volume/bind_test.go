package volume

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// Root inside of a container is root in what is bound into it: only directories that the machine lends may be.
func TestTasksBindOnlyWhatTheMachineLends(t *testing.T) {
	lent, other := t.TempDir(), t.TempDir()
	for link, to := range map[string]string{"out": other, "in": filepath.Join(lent, "data"), "up": "/"} {
		if err := os.Symlink(to, filepath.Join(lent, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"data", "data/deep"} {
		if err := os.Mkdir(filepath.Join(lent, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, allowed := range map[string]bool{
		lent: true, lent + "/data": true, lent + "/data/deep": true, lent + "/in/deep": true,
		"/": false, "/etc": false, filepath.Dir(lent): false, other: false, lent + "x": false,
		lent + "/out": false, lent + "/up": false, lent + "/up/etc": false, lent + "/data/../../..": false, lent + "/none": false,
	} {
		b, err := Bind(kernel.Volume{ContainerPath: "/data", HostPath: path}, "/sandbox", nil, []string{lent})
		if allowed != (err == nil) {
			t.Errorf("%s: got %+v, %v, want allowed to be %v", path, b, err, allowed)
		}
		if err != nil && !errdefs.IsPermissionDenied(err) && !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v is of no kind that says why", path, err)
		}
	}
	if _, err := Bind(kernel.Volume{ContainerPath: "/data", HostPath: "/srv"}, "/sandbox", nil, nil); err == nil {
		t.Error("a machine that lends nothing lent /srv")
	}
}

func TestRelativePathsAreTheSandboxsAndLeaveItNever(t *testing.T) {
	mounted := map[string]string{"data": "/state/volumes/data"}
	for _, c := range []struct {
		name string
		v    kernel.Volume
		want runtime.Bind
		is   func(error) bool
	}{
		{"relative on both sides", kernel.Volume{ContainerPath: "in", HostPath: "a/b", ReadOnly: true},
			runtime.Bind{Source: "/sandbox/a/b", Target: runtime.SandboxTarget + "/in", ReadOnly: true}, nil},
		{"of the reservation", kernel.Volume{ContainerPath: "/data", Reserved: "data"},
			runtime.Bind{Source: "/state/volumes/data", Target: "/data"}, nil},
		{"out of the sandbox, inside", kernel.Volume{ContainerPath: "../x", HostPath: "a"}, runtime.Bind{}, errdefs.IsInvalidArgument},
		{"out of the sandbox, outside", kernel.Volume{ContainerPath: "x", HostPath: "a/../../b"}, runtime.Bind{}, errdefs.IsInvalidArgument},
		{"from nowhere", kernel.Volume{ContainerPath: "/x"}, runtime.Bind{}, errdefs.IsInvalidArgument},
		{"to nowhere", kernel.Volume{HostPath: "a"}, runtime.Bind{}, errdefs.IsInvalidArgument},
	} {
		got, err := Bind(c.v, "/sandbox", mounted, nil)
		if c.is == nil && (err != nil || got != c.want) || c.is != nil && !c.is(err) {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}
