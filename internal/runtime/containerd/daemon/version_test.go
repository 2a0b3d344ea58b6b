package daemon

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestRuntimesWithKnownHolesAreRefused(t *testing.T) {
	for version, ok := range map[string]bool{
		"runc 1.1.5": false, "runc 1.2.9": false, "runc 1.3.5": false, "runc 1.3.6": true, "runc 1.4.2": false,
		"runc 1.4.3": true, "runc 1.5.0-rc.3": false, "runc 1.5.0": true, "runc 1.5.2": true, "runc 1.6.0": true,
		"runc 2.0.0": true, "runc unknown": false,
		"containerd 1.6.20": false, "containerd v1.7.32": false, "containerd v1.7.33": true, "containerd 2.0.9": false,
		"containerd 2.1.9": true, "containerd 2.2.4": false, "containerd v2.3.2": true, "containerd 2.4.0": true,
		"containerd 1.8.0": false,
	} {
		program, v, _ := strings.Cut(version, " ")
		err := CheckFloor(program, v)
		if (err == nil) != ok || (err != nil && !errdefs.IsFailedPrecondition(err)) {
			t.Errorf("%s: got %v, want allowed: %v", version, err, ok)
		}
		if err != nil && (!strings.Contains(err.Error(), v) || !strings.Contains(err.Error(), floors[program][0])) {
			t.Errorf("%s: %q names not both what was found and what is needed", version, err)
		}
	}
}
