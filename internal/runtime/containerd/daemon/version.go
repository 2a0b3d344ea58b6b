package daemon

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/coreos/go-semver/semver"
)

// floors are, for each line of releases, the first without a known way out of a container. A line above the last is
// taken as safe, any other that is not named is not.
// Sources: the security advisories up to CVE-2026-41579 (runc) and CVE-2026-53488 (containerd).
var floors = map[string][]string{
	"runc":       {"1.3.6", "1.4.3", "1.5.0"},
	"containerd": {"1.7.33", "2.0.10", "2.1.9", "2.2.5", "2.3.2"},
}

// CheckFloor refuses a version of runc or containerd with known ways out of a container. The error is
// errdefs.ErrFailedPrecondition and names the version found and those needed.
func CheckFloor(program, version string) error {
	need := strings.Join(floors[program], ", ")
	refuse := func(why string) error {
		return fmt.Errorf("%s %s %s; needed is one of %s or newer: build bundle/runtime or point to a newer one: %w",
			program, version, why, need, errdefs.ErrFailedPrecondition)
	}
	have, err := semver.NewVersion(strings.TrimPrefix(version, "v"))
	if err != nil {
		return refuse("is not a version")
	}
	var last semver.Version
	for _, f := range floors[program] {
		last = *semver.New(f)
		if have.Major == last.Major && have.Minor == last.Minor {
			if have.LessThan(last) {
				return refuse("has known ways out of a container")
			}
			return nil
		}
	}
	if have.LessThan(last) {
		return refuse("is of a line without fixes for known ways out of a container")
	}
	return nil
}

var versionWord = regexp.MustCompile(`\bv?(\d+\.\d+\.\d+\S*)`)

// Version asks a program of the bundle for its version and refuses one below its floor; see CheckFloor.
func Version(ctx context.Context, bin, program string) (string, error) {
	v, err := askVersion(ctx, bin, program)
	if err != nil {
		return "", err
	}
	return v, CheckFloor(program, v)
}

func askVersion(ctx context.Context, bin, program string) (string, error) {
	path := filepath.Join(bin, program)
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: build it with `make -C bundle/runtime`: %w", path, err, errdefs.ErrFailedPrecondition)
	}
	m := versionWord.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s says no version: %w", path, errdefs.ErrFailedPrecondition)
	}
	return string(m[1]), nil
}
