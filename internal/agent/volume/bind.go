package volume

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// Bind returns a task's mount of a volume. Relative paths are the sandbox's, on either side; volumes of the reservation
// are where mounted says; absolute paths of the machine must be in a directory that it lends, wherever links lead. Root
// inside of a container is root in what is bound, so nothing is lent by default.
func Bind(v kernel.Volume, sandbox string, mounted map[string]string, lent []string) (runtime.Bind, error) {
	b := runtime.Bind{Source: v.HostPath, Target: v.ContainerPath, ReadOnly: v.ReadOnly}
	if v.Reserved == "" && v.HostPath == "" || v.ContainerPath == "" {
		return b, fmt.Errorf("volume at %q needs a host path and a container path: %w", v.ContainerPath,
			errdefs.ErrInvalidArgument)
	}
	if !path.IsAbs(b.Target) {
		if !filepath.IsLocal(b.Target) {
			return b, fmt.Errorf("volume at %q leaves the sandbox: %w", v.ContainerPath, errdefs.ErrInvalidArgument)
		}
		b.Target = path.Join(runtime.SandboxTarget, b.Target)
	}
	if v.Reserved != "" {
		b.Source = mounted[v.Reserved]
		return b, nil
	}
	if !path.IsAbs(b.Source) {
		if !filepath.IsLocal(b.Source) {
			return b, fmt.Errorf("volume of %q leaves the sandbox: %w", v.HostPath, errdefs.ErrInvalidArgument)
		}
		b.Source = filepath.Join(sandbox, b.Source)
		return b, nil
	}
	real, err := filepath.EvalSymlinks(b.Source)
	if err != nil {
		return b, fmt.Errorf("volume of %q: no such directory on this machine: %w", v.HostPath, errdefs.ErrNotFound)
	}
	for _, dir := range lent {
		if top, err := filepath.EvalSymlinks(dir); err == nil && (real == top || top == "/" ||
			strings.HasPrefix(real, top+"/")) {
			b.Source = real
			return b, nil
		}
	}
	return b, fmt.Errorf("volume of %q: this machine lends it to no task; its operator can, by marina up --host-volume "+
		"%s: %w", v.HostPath, v.HostPath, errdefs.ErrPermissionDenied)
}
