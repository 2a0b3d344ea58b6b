package kernel

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSpecAsksForAHostPortOnce(t *testing.T) {
	spec := func(ports ...Port) Spec {
		return Spec{Framework: "f", Owner: "/o", Role: "/", Network: Network{Mode: NetworkHost},
			Tasks: []TaskSpec{{Name: "a", Suffix: ".a", Shell: "true", Ports: ports[:1]}, {Name: "b", Suffix: ".b", Shell: "true", Ports: ports[1:]}}}
	}
	for _, c := range []struct {
		name          string
		first, second Port
		ok            bool
	}{
		{"two numbers", Port{Protocol: "tcp", Host: 80}, Port{Protocol: "tcp", Host: 81}, true},
		{"two protocols", Port{Protocol: "tcp", Host: 80}, Port{Protocol: "udp", Host: 80}, true},
		{"any and any", Port{Protocol: "tcp"}, Port{Protocol: "tcp"}, true},
		{"none and none", Port{Protocol: "tcp", Host: NoHostPort}, Port{Protocol: "tcp", Host: NoHostPort}, true},
		{"the same", Port{Protocol: "tcp", Host: 80}, Port{Protocol: "tcp", Host: 80}, false},
		{"one within the other", Port{Protocol: "udp,tcp", Host: 80}, Port{Protocol: "tcp", Host: 80}, false},
	} {
		_, err := spec(c.first, c.second).Seal()
		switch {
		case c.ok && err != nil:
			t.Errorf("%s: got %v, want no error", c.name, err)
		case !c.ok && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "80/tcp")):
			t.Errorf("%s: got %v, want an invalid argument that names 80/tcp", c.name, err)
		}
	}
}
