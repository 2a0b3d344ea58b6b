package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/marinaos/marina"

// ProbeImage is the name of the image with test/probe in it.
const ProbeImage = "probe:1"

// Workshop is the programs and images a test binary works with.
type Workshop struct {
	Marina  string // the program
	Runtime string // directory of containerd, runc and the CNI plugins
	Probe   string // archive of ProbeImage
	dir     string
	root    string // of the repository
}

// ErrNotReal is why real containers cannot be had here.
var ErrNotReal = errors.New("real containers cannot be had")

// OpenWorkshop builds what is missing. MARINA_BIN names a built marina; without, this checkout's is built. The error is
// ErrNotReal where no datacenter can run at all.
func OpenWorkshop() (*Workshop, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: this is uid %d, they take root", ErrNotReal, os.Geteuid())
	}
	// by name: the test may be of another module
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return nil, fmt.Errorf("the repository's directory: %w", err)
	}
	w := &Workshop{root: strings.TrimSpace(string(out)), Marina: os.Getenv("MARINA_BIN"),
		Runtime: os.Getenv("MARINA_RUNTIME")}
	if w.Runtime == "" {
		w.Runtime = filepath.Join(w.root, "bundle", "runtime", "bin")
	}
	if _, err := os.Stat(filepath.Join(w.Runtime, "runc")); err != nil {
		return nil, fmt.Errorf("%w: %s has no runc: make -C bundle/runtime builds it", ErrNotReal, w.Runtime)
	}
	if w.dir, err = os.MkdirTemp("/tmp", "mw"); err != nil {
		return nil, err
	}
	if err := w.build(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Workshop) build() error {
	if w.Marina == "" {
		var err error
		if w.Marina, err = w.Build("marina", "testbed-1"); err != nil {
			return err
		}
	} else if abs, err := filepath.Abs(w.Marina); err != nil {
		return err
	} else {
		w.Marina = abs
	}
	var err error
	w.Probe, err = w.Image(ProbeImage, "test/probe")
	return err
}

// Image builds the program in a directory of the repository and makes an image of it; it returns the archive. Flags are
// examples/ociimage's.
func (w *Workshop) Image(name, dir string, flags ...string) (string, error) {
	own, err := os.MkdirTemp(w.dir, "image")
	if err != nil {
		return "", err
	}
	program := filepath.Join(own, filepath.Base(dir))
	if err := w.goTool("build", "-C", dir, "-trimpath", "-ldflags", "-s -w", "-o", program, "."); err != nil {
		return "", err
	}
	archive := program + ".tar"
	args := append([]string{"run", "./examples/ociimage", "-name", name, "-o", archive}, flags...)
	return archive, w.goTool(append(args, program)...)
}

// Bundle is the directory of a bundle of Kubernetes: "v1.37", "node", "addons".
func (w *Workshop) Bundle(name string) string {
	return filepath.Join(w.root, "bundle", "kubernetes", name, "bin")
}

// Build builds marina once more, as another version, under another name.
func (w *Workshop) Build(name, version string) (string, error) {
	out := filepath.Join(w.dir, name)
	return out, w.goTool("build", "-trimpath", "-ldflags", "-s -w -X "+module+"/internal/cli.Version="+version, "-o",
		out, "./cmd/marina")
}

func (w *Workshop) goTool(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = w.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Example is the path of a file of examples/.
func (w *Workshop) Example(name string) string { return filepath.Join(w.root, "examples", name) }

// Close removes what was built.
func (w *Workshop) Close() error { return os.RemoveAll(w.dir) }
