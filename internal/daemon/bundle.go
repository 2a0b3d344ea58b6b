package daemon

import (
	"os"
	"path/filepath"
	"strings"
)

// Bundles are directories of programs that Marina brings for tasks: "runtime", and below bundle/kubernetes a directory
// for each minor, for nodes and for add-ons. A checkout has them as bundle/kubernetes/NAME/bin, a release as
// kubernetes/NAME beside its runtime.

// bundle is the directory of one, if this machine has it.
func (c *config) bundle(name string) (string, bool) {
	if name == "runtime" {
		return c.Runtime, true
	}
	if !filepath.IsLocal(name) {
		return "", false
	}
	for _, dir := range c.bundlePaths(name) {
		if _, err := os.Stat(filepath.Join(dir, "VERSION")); err == nil {
			return dir, true
		}
	}
	return "", false
}

// bundlePaths lists the places of bundles, seen from the runtime's directory.
func (c *config) bundlePaths(name string) []string {
	return []string{filepath.Join(c.Runtime, "..", "..", name, "bin"), filepath.Join(c.Runtime, "..", name)}
}

// bundles lists those there are, with their versions.
func (c *config) bundles() map[string]string {
	out := map[string]string{"runtime": Version}
	for _, pattern := range c.bundlePaths("kubernetes/*") {
		found, _ := filepath.Glob(filepath.Join(pattern, "VERSION")) // the pattern is well-formed
		for _, file := range found {
			raw, err := os.ReadFile(file)
			dir := filepath.Dir(file)
			if filepath.Base(dir) == "bin" {
				dir = filepath.Dir(dir)
			}
			if name := "kubernetes/" + filepath.Base(dir); err == nil && out[name] == "" {
				out[name] = strings.TrimSpace(string(raw))
			}
		}
	}
	return out
}
