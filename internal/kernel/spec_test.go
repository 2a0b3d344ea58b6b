package kernel

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSpecAsksForAHostPortOnce(t *testing.T) {
	spec := func(ports ...Port) Spec {
		return Spec{Framework: "f", Owner: "/o", Role: "/", Network: Network{Mode: NetworkHost},
			Tasks: []TaskSpec{{Name: "a", Suffix: ".a", Shell: "true", Ports: ports[:1]},
				{Name: "b", Suffix: ".b", Shell: "true", Ports: ports[1:]}}}
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

// plain is a spec of one task that may be sealed.
func plain() Spec {
	return Spec{Framework: "f", Owner: "/o", Role: "/", Network: Network{Mode: NetworkBridge},
		Tasks: []TaskSpec{{Name: "a", Suffix: ".a", Shell: "true", Ports: []Port{{Protocol: "tcp"}}}}}
}

func TestASpecThatNobodyCouldRunIsRefusedByItsField(t *testing.T) {
	check := Check{Kind: CheckTCP, Interval: 1, Timeout: 1}
	for says, change := range map[string]func(*Spec, *TaskSpec){
		"framework is empty":                 func(s *Spec, _ *TaskSpec) { s.Framework = "" },
		"owner is empty":                     func(s *Spec, _ *TaskSpec) { s.Owner = "" },
		`role "prod" is not a path`:          func(s *Spec, _ *TaskSpec) { s.Role = "prod" },
		`role "" is not a path`:              func(s *Spec, _ *TaskSpec) { s.Role = "" },
		"0 tasks, expected 1 to 32":          func(s *Spec, _ *TaskSpec) { s.Tasks = nil },
		"33 tasks":                           func(s *Spec, _ *TaskSpec) { s.Tasks = make([]TaskSpec, 33) },
		`strategy "random"`:                  func(s *Spec, _ *TaskSpec) { s.Strategy = "random" },
		`reserved "some"`:                    func(s *Spec, _ *TaskSpec) { s.Reserved = "some" },
		"priority 1001":                      func(s *Spec, _ *TaskSpec) { s.Priority = 1001 },
		"priority -1001":                     func(s *Spec, _ *TaskSpec) { s.Priority = -1001 },
		`network mode "none"`:                func(s *Spec, _ *TaskSpec) { s.Network.Mode = "none" },
		"task 0 needs a name":                func(_ *Spec, t *TaskSpec) { t.Name = "" },
		"a suffix of its own":                func(s *Spec, t *TaskSpec) { s.Tasks = append(s.Tasks, *t) },
		"guarantees less than nothing":       func(_ *Spec, t *TaskSpec) { t.Guarantee.Mem = -1 },
		"both a shell command and arguments": func(_ *Spec, t *TaskSpec) { t.Argv = []string{"x"} },
		"neither an image nor a command":     func(_ *Spec, t *TaskSpec) { t.Shell = "" },
		"more than 64 ports":                 func(_ *Spec, t *TaskSpec) { t.Ports = make([]Port, 65) },
		`is of class "oven"`:                 func(_ *Spec, t *TaskSpec) { t.Class = "oven" },
		`a "node" has bridge network`: func(s *Spec, t *TaskSpec) {
			t.Class,
				s.Network.Mode = ClassNode, NetworkHost
		},
		`and no image`:          func(_ *Spec, t *TaskSpec) { t.Class, t.Image = ClassNode, "x:1" },
		`bundle "../etc"`:       func(_ *Spec, t *TaskSpec) { t.Bundles = []string{"runtime", "../etc"} },
		`a file at "etc/x"`:     func(_ *Spec, t *TaskSpec) { t.Files = []File{{Path: "etc/x"}} },
		`a file at "/etc/../x"`: func(_ *Spec, t *TaskSpec) { t.Files = []File{{Path: "/etc/../x"}} },
		"either content or a secret": func(_ *Spec,
			t *TaskSpec) {
			t.Files = []File{{Path: "/x", Content: []byte{1}, Secret: "s"}}
		},
		`volume "data", which is not of the spec`: func(_ *Spec, t *TaskSpec) { t.Volumes = []Volume{{Reserved: "data"}} },
		`reservation "Demo"`:                      func(s *Spec, _ *TaskSpec) { s.Reservation = &Reservation{Name: "Demo"} },
		`reservation ".x"`:                        func(s *Spec, _ *TaskSpec) { s.Reservation = &Reservation{Name: ".x"} },
		`reservation "a/b"`:                       func(s *Spec, _ *TaskSpec) { s.Reservation = &Reservation{Name: "a/b"} },
		"at least 16 MiB": func(s *Spec, _ *TaskSpec) {
			s.Reservation = &Reservation{Name: "x", Volumes: []ReservedVolume{{Name: "data", Bytes: MiB}}}
		},
		`volume "data" of reservation x`: func(s *Spec, _ *TaskSpec) {
			s.Reservation = &Reservation{Name: "x", Volumes: []ReservedVolume{{"data", 16 * MiB}, {"data", 16 * MiB}}}
		},
		"a check without interval": func(_ *Spec, t *TaskSpec) { t.Checks = []Check{{Kind: CheckTCP, Timeout: 1}} },
		"or timeout":               func(_ *Spec, t *TaskSpec) { t.Checks = []Check{{Kind: CheckTCP, Interval: 1}} },
		"checks port 1 of 1": func(_ *Spec, t *TaskSpec) {
			t.Checks = []Check{check}
			t.Checks[0].PortIndex = 1
		},
		"the limit is 131072": func(_ *Spec, t *TaskSpec) { t.Shell = strings.Repeat("x", MaxSpecBytes) },
	} {
		s := plain()
		change(&s, &s.Tasks[0])
		if _, err := s.Seal(); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want an invalid argument that says %q", err, says)
		}
	}
}

func TestEqualSpecsHaveEqualIDs(t *testing.T) {
	all := map[SpecID]string{}
	for what, change := range map[string]func(*Spec, *TaskSpec){
		"plain":       func(*Spec, *TaskSpec) {},
		"priority":    func(s *Spec, _ *TaskSpec) { s.Priority = -1 },
		"reservation": func(s *Spec, _ *TaskSpec) { s.Reservation = &Reservation{Name: "x"} },
		"port":        func(_ *Spec, t *TaskSpec) { t.Ports[0].Host = 80 },
		"a check":     func(_ *Spec, t *TaskSpec) { t.Checks = []Check{{Kind: CheckCommand, Interval: 1, Timeout: 1}} },
		"a node":      func(_ *Spec, t *TaskSpec) { t.Class = ClassNode },
	} {
		s := plain()
		change(&s, &s.Tasks[0])
		first, err := s.Seal()
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		again, err := first.Seal() // its own id does not count
		if err != nil || again.ID != first.ID || len(first.ID) != 32 || s.ID != "" {
			t.Errorf("%s: sealed as %q, again as %q (%v)", what, first.ID, again.ID, err)
		}
		if other, taken := all[first.ID]; taken {
			t.Errorf("%s and %s have one id, %s", what, other, first.ID)
		}
		all[first.ID] = what
	}
}

func TestWhatAnInstanceTakesIsItsTasksAndItsVolumes(t *testing.T) {
	s := plain()
	s.Tasks[0].Guarantee = Resources{MilliCPU: 100, Mem: MiB}
	s.Tasks = append(s.Tasks, TaskSpec{Name: "b", Suffix: ".b", Guarantee: Resources{MilliCPU: 50, Disk: MiB},
		Limit: NoLimit,
		Ports: []Port{{Name: "x"}, {Name: "y"}}})
	s.Reservation = &Reservation{Name: "r", Volumes: []ReservedVolume{{"a", GiB}, {"b", GiB}}}
	want := Resources{MilliCPU: 150, Mem: MiB, Disk: 2*GiB + MiB}
	if got := s.Guarantee(); got != want {
		t.Errorf("spec: got %v, want %v", got, want)
	}
	g := Assignment{ID: "i", Sizes: []Size{{Guarantee: Resources{MilliCPU: 200}}}}
	want = Resources{MilliCPU: 250, Disk: 2*GiB + MiB}
	if got := g.Guarantee(&s); got != want {
		t.Errorf("resized: got %v, want %v", got, want)
	}
	if got := g.Size(&s, 1); got != (Size{s.Tasks[1].Guarantee, NoLimit}) {
		t.Errorf("a task that was not resized: got %v", got)
	}
	if got := s.TaskIDs("i"); len(got) != 2 || got[0] != "i.a" || got[1] != "i.b" {
		t.Errorf("tasks: %v", got)
	}
	if got := s.Ports(); len(got) != 3 || got[2].Name != "y" {
		t.Errorf("ports: %v", got)
	}
}
