package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
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
	w := place{sandbox: t.TempDir(), lent: []string{lent}}
	for path, allowed := range map[string]bool{
		lent: true, lent + "/data": true, lent + "/data/deep": true, lent + "/in/deep": true,
		"/": false, "/etc": false, filepath.Dir(lent): false, other: false, lent + "x": false,
		lent + "/out": false, lent + "/up": false, lent + "/up/etc": false, lent + "/data/../../..": false, lent + "/none": false,
	} {
		b, err := bind(kernel.Volume{ContainerPath: "/data", HostPath: path}, w)
		if allowed != (err == nil) {
			t.Errorf("%s: got %+v, %v, want allowed to be %v", path, b, err, allowed)
		}
		if err != nil && !errdefs.IsPermissionDenied(err) && !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v is of no kind that says why", path, err)
		}
	}
	if _, err := bind(kernel.Volume{ContainerPath: "/data", HostPath: "/srv"}, place{}); err == nil {
		t.Error("a machine that lends nothing lent /srv")
	}
}
