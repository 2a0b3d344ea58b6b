package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const tags = "selinux,notest,grpcnotrace" // as upstream's release builds and bundle/kubernetes have it

// Minor is a minor of Kubernetes: its source, what is built of it, and what is known of its tests.
type Minor struct {
	name    string // "v1.37"
	release string // "v1.37.2"
	root    string // of this repository
	source  string // upstream's tree, in Go's module cache
	cache   string // directory for what is built
	tests   []Test
	results *Results
	made    struct { // the image that was built last
		name  string
		image v1.Image
	}
}

// Directories of a repository: what is built and logged, and results, which are part of it since a whole run takes
// hours.
const (
	cacheDir   = ".cache/conformance"
	resultsDir = "docs/conformance"
)

func openMinor(ctx context.Context, root, name string) (*Minor, error) {
	m := &Minor{name: name, root: root, cache: filepath.Join(root, cacheDir, name)}
	if err := os.MkdirAll(m.cache, 0o755); err != nil {
		return nil, err
	}
	// Fetched if the module cache lacks it.
	cmd := m.goCommand(ctx, "list", "-m", "-f", "{{.Version}} {{.Dir}}", "k8s.io/kubernetes")
	out, err := cmd.Output()
	if f := strings.Fields(string(out)); err == nil && len(f) == 2 {
		m.release, m.source = f[0], f[1]
	} else {
		return nil, fmt.Errorf("minor %s: source of Kubernetes: %q, %w", name, out,
			errors.Join(err, m.goTool(ctx, "mod", "download", "k8s.io/kubernetes")))
	}
	if m.tests, err = readTests(m.source); err != nil {
		return nil, fmt.Errorf("minor %s: %w", name, err)
	}
	m.results, err = readResults(filepath.Join(root, resultsDir, name+".json"))
	return m, err
}

// minors are those that have a module here, the newest last.
func minors(root string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "test", "conformance", "v*", "go.mod"))
	for i, f := range files {
		files[i] = filepath.Base(filepath.Dir(f))
	}
	return files, err
}

func (m *Minor) goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(m.root, "test", "conformance", m.name)
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	return cmd
}

// goTool runs go in the minor's module; builds are as upstream's releases and as those of bundle/kubernetes, with which
// they share Go's build cache.
func (m *Minor) goTool(ctx context.Context, args ...string) error {
	if args[0] == "build" || args[0] == "test" {
		flags := []string{"-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", m.stamp()}
		args = slices.Insert(args, 1, flags...)
	}
	if out, err := m.goCommand(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// stamp names the programs' versions.
func (m *Minor) stamp() string {
	s := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		s += fmt.Sprintf(" -X %s.gitVersion=%s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=%[3]s -X %[1]s.gitTreeState=archive "+
			"-X %[1]s.gitCommit=",
			pkg, m.release, strings.TrimPrefix(m.name, "v1."))
	}
	return s
}

// buildSuite compiles upstream's tests and returns the program.
func (m *Minor) buildSuite(ctx context.Context) (string, error) {
	out := filepath.Join(m.cache, "programs", "e2e.test")
	return out, m.goTool(ctx, "test", "-c", "-vet=off", "-o", out, "k8s.io/kubernetes/test/e2e")
}

// images are the references of all images that the tests may use, that have a recipe.
func (m *Minor) images(ctx context.Context, program string) ([]string, error) {
	out, err := exec.CommandContext(ctx, program, "--list-images").Output()
	if err != nil {
		return nil, fmt.Errorf("images of %s: %w", m.name, err)
	}
	refs := slices.DeleteFunc(strings.Fields(string(out)), func(ref string) bool { return !buildable(ref) })
	slices.Sort(refs)
	return slices.Compact(refs), nil
}

// component is a link to the minor's one program, under the name of a component that it then is.
func (m *Minor) component(name string) (string, error) {
	bundles := filepath.Join(m.root, "bundle")
	if runtime := os.Getenv("MARINA_RUNTIME"); runtime != "" {
		bundles = filepath.Join(runtime, "..", "..")
	}
	program := filepath.Join(bundles, "kubernetes", m.name, "bin", "kubernetes-"+m.name)
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%w: make -C bundle/kubernetes %s builds it", err, m.name)
	}
	link := filepath.Join(m.cache, "programs", name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return "", err
	}
	os.Remove(link)
	return link, os.Symlink(program, link)
}
