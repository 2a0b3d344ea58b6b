package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Limits on what a scheduler may hand in.
const (
	MaxSpecBytes    = 128 << 10 // one spec, encoded
	MaxTasks        = 32        // tasks of one group
	MaxPorts        = 64        // ports of one group
	MaxMessage      = 1024      // bytes of a status message kept
	MaxLaunchGroups = 100_000   // groups of one LaunchRequest
)

// SpecID names a Spec by its content: equal specs have equal ids.
type SpecID string

// Spec says what one instance of some work looks like. It is immutable: a change is another Spec.
type Spec struct {
	ID        SpecID     `json:"id"`                  // set by Seal
	Framework string     `json:"framework"`           // who owns it: "marathon"; also its part of DNS names
	Owner     string     `json:"owner"`               // what it is an instance of, opaque: "/prod/web"
	Version   string     `json:"version,omitempty"`   // the owner's version, opaque
	Role      string     `json:"role"`                // path in the quota tree that pays: "/prod"; "/" is the root
	Discovery string     `json:"discovery,omitempty"` // DNS label source: "web.prod"; empty means not named
	Network   Network    `json:"network"`
	Tasks     []TaskSpec `json:"tasks"`

	// Constraints must all hold for an agent to be chosen.
	Constraints []Constraint `json:"constraints,omitempty"`
}

// NetworkMode says where a group's ports are.
type NetworkMode string

// The network modes.
const (
	NetworkHost   NetworkMode = "host"   // the machine's own namespace; ports are host ports
	NetworkBridge NetworkMode = "bridge" // own namespace with an address of the datacenter; host ports are mapped
)

// Network is how a group is connected.
type Network struct {
	Mode NetworkMode `json:"mode"`
	Name string      `json:"name,omitempty"` // a named network; empty is the default one
}

// Constraint restricts the agents a spec may run on, in Marathon's terms: field, operator, value.
type Constraint struct {
	Field    string `json:"field"`    // "hostname", "@region", "@zone" or an attribute
	Operator string `json:"operator"` // UNIQUE, CLUSTER, GROUP_BY, LIKE, UNLIKE, MAX_PER, IS
	Value    string `json:"value,omitempty"`
}

// TaskSpec is one container of a group.
type TaskSpec struct {
	Name   string `json:"name"`            // unique in the group: "_app"
	Suffix string `json:"suffix"`          // task id = group id + Suffix: "._app.1"
	Image  string `json:"image,omitempty"` // reference; empty: the machine's own programs
	Pull   bool   `json:"pull,omitempty"`  // ask the image's source again even if it is present

	Shell string   `json:"shell,omitempty"` // run by /bin/sh -c; excludes Argv
	Argv  []string `json:"argv,omitempty"`  // arguments; with an image they follow its entrypoint
	User  string   `json:"user,omitempty"`  // empty: the image's, or nobody without one
	TTY   bool     `json:"tty,omitempty"`
	Env   []EnvVar `json:"env,omitempty"` // later entries win

	Guarantee Resources `json:"guarantee"`
	Limit     Resources `json:"limit"` // zero component: the guarantee; Unlimited: no bound
	PIDs      int64     `json:"pids,omitempty"`

	Ports   []Port   `json:"ports,omitempty"`
	Checks  []Check  `json:"checks,omitempty"`
	Volumes []Volume `json:"volumes,omitempty"`

	KillGrace time.Duration `json:"killGrace,omitempty"` // from TERM to KILL; zero: DefaultKillGrace
}

// DefaultKillGrace is how long a task has between TERM and KILL when its spec does not say.
const DefaultKillGrace = 3 * time.Second

// Field is a value known only once a group is placed; an agent fills it in.
type Field string

// The fields an EnvVar can take its value from. FieldPort(i) is the i-th port's.
const (
	FieldHost    Field = "host"     // the agent's hostname
	FieldTaskID  Field = "task.id"  // this task's id
	FieldGroupID Field = "group.id" // its group's id
	FieldAddress Field = "address"  // the group's address
	FieldPorts   Field = "ports"    // all effective ports of the task, comma-separated
)

// FieldPort is the effective port number of the task's i-th port: the host port if there is one, else the container port.
func FieldPort(i int) Field { return Field(fmt.Sprintf("port.%d", i)) }

// EnvVar is one variable of a task's environment: a value, or a field filled in by the agent.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	From  Field  `json:"from,omitempty"`
}

// Port is one port a task listens on.
type Port struct {
	Name      string            `json:"name,omitempty"`
	Protocol  string            `json:"protocol"`            // "tcp", "udp" or "udp,tcp"
	Container uint16            `json:"container,omitempty"` // where the task listens; zero: the host port's number
	Host      int               `json:"host,omitempty"`      // NoHostPort, AnyHostPort, or a fixed number
	Service   uint16            `json:"service,omitempty"`   // the owner's service port; its number never changes
	Publish   bool              `json:"publish,omitempty"`   // Service is opened on every machine's own address
	VIPs      []VIP             `json:"vips,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Values of Port.Host that are not port numbers.
const (
	AnyHostPort = 0
	NoHostPort  = -1
)

// VIP asks for a stable virtual address in front of every ready instance with the same VIP.
type VIP struct {
	Name string     `json:"name,omitempty"` // "hello": hello.<framework>.l4lb.thisdcos.directory; excludes Addr
	Addr netip.Addr `json:"addr,omitzero"`  // a literal address
	Port uint16     `json:"port"`
}

// Volume is a place of a task's filesystem that is not its own.
type Volume struct {
	ContainerPath string `json:"containerPath"`
	HostPath      string `json:"hostPath,omitempty"`
	ReadOnly      bool   `json:"readOnly,omitempty"`
}

// CheckKind is how a check asks.
type CheckKind string

// The kinds of checks. All run on the agent.
const (
	CheckHTTP    CheckKind = "http"
	CheckHTTPS   CheckKind = "https"
	CheckTCP     CheckKind = "tcp"
	CheckCommand CheckKind = "command"
)

// Check asks a task, again and again, whether it works. HTTP passes on 200 to 399; HTTPS does not verify certificates.
type Check struct {
	Kind       CheckKind     `json:"kind"`
	PortIndex  int           `json:"portIndex,omitempty"`  // into the task's Ports; ignored if PortNumber is set
	PortNumber uint16        `json:"portNumber,omitempty"` // a port on the task's address
	Path       string        `json:"path,omitempty"`
	Shell      string        `json:"shell,omitempty"` // CheckCommand: run inside the container by /bin/sh -c
	Argv       []string      `json:"argv,omitempty"`  // CheckCommand: or run as is
	Ignore1xx  bool          `json:"ignore1xx,omitempty"`
	Delay      time.Duration `json:"delay,omitempty"`       // before the first check after the task runs
	Grace      time.Duration `json:"grace,omitempty"`       // failures do not count until the first success within it
	Interval   time.Duration `json:"interval"`              // between the starts of two checks
	Timeout    time.Duration `json:"timeout"`               // of one check
	MaxFailed  int           `json:"maxFailures,omitempty"` // consecutive failures before Alive turns false; zero: one
}

// Seal checks the spec and returns it with its ID set. Errors are errdefs.ErrInvalidArgument and name the field.
func (s Spec) Seal() (Spec, error) {
	if err := s.validate(); err != nil {
		return Spec{}, err
	}
	s.ID = ""
	b, err := json.Marshal(s)
	if err != nil {
		return Spec{}, fmt.Errorf("spec of %s: %w", s.Owner, err)
	}
	if len(b) > MaxSpecBytes {
		return Spec{}, invalid("spec of %s is %d bytes encoded, the limit is %d", s.Owner, len(b), MaxSpecBytes)
	}
	sum := sha256.Sum256(b)
	s.ID = SpecID(hex.EncodeToString(sum[:16]))
	return s, nil
}

// Guarantee is what placing one group of this spec takes from an agent.
func (s *Spec) Guarantee() Resources {
	var sum Resources
	for i := range s.Tasks {
		sum = sum.Add(s.Tasks[i].Guarantee)
	}
	return sum
}

// Ports lists the ports of all tasks in order; Group.HostPorts has one entry for each.
func (s *Spec) Ports() []Port {
	var out []Port
	for i := range s.Tasks {
		out = append(out, s.Tasks[i].Ports...)
	}
	return out
}

// TaskIDs lists the ids of a group's tasks, in the order of Tasks.
func (s *Spec) TaskIDs(g GroupID) []TaskID {
	out := make([]TaskID, len(s.Tasks))
	for i := range s.Tasks {
		out[i] = TaskID(string(g) + s.Tasks[i].Suffix)
	}
	return out
}

func (s *Spec) validate() error {
	switch {
	case s.Framework == "":
		return invalid("spec of %q: framework is empty", s.Owner)
	case s.Owner == "":
		return invalid("spec: owner is empty")
	case s.Role == "" || s.Role[0] != '/':
		return invalid("spec of %s: role %q is not a path of the quota tree", s.Owner, s.Role)
	case len(s.Tasks) == 0 || len(s.Tasks) > MaxTasks:
		return invalid("spec of %s: %d tasks, expected 1 to %d", s.Owner, len(s.Tasks), MaxTasks)
	case s.Network.Mode != NetworkHost && s.Network.Mode != NetworkBridge:
		return invalid("spec of %s: network mode %q, expected %q or %q", s.Owner, s.Network.Mode, NetworkHost, NetworkBridge)
	}
	names, held := map[string]bool{}, map[string]bool{}
	ports := 0
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.Name == "" || t.Suffix == "" || names[t.Name] || names[t.Suffix] {
			return invalid("spec of %s: task %d needs a name and a suffix of its own", s.Owner, i)
		}
		names[t.Name], names[t.Suffix] = true, true
		if !t.Guarantee.Valid() {
			return invalid("spec of %s: task %s guarantees less than nothing: %v", s.Owner, t.Name, t.Guarantee)
		}
		if t.Shell != "" && len(t.Argv) > 0 {
			return invalid("spec of %s: task %s has both a shell command and arguments", s.Owner, t.Name)
		}
		if t.Image == "" && t.Shell == "" && len(t.Argv) == 0 {
			return invalid("spec of %s: task %s has neither an image nor a command", s.Owner, t.Name)
		}
		if ports += len(t.Ports); ports > MaxPorts {
			return invalid("spec of %s: more than %d ports", s.Owner, MaxPorts)
		}
		for _, p := range t.Ports {
			for protocol := range strings.SplitSeq(p.Protocol, ",") {
				port := fmt.Sprintf("%d/%s", p.Host, protocol)
				if p.Host > 0 && held[port] {
					return invalid("spec of %s: task %s asks for host port %s a second time", s.Owner, t.Name, port)
				}
				held[port] = true
			}
		}
		for _, c := range t.Checks {
			if c.Interval <= 0 || c.Timeout <= 0 {
				return invalid("spec of %s: task %s has a check without interval or timeout", s.Owner, t.Name)
			}
			if c.Kind != CheckCommand && c.PortNumber == 0 && (c.PortIndex < 0 || c.PortIndex >= len(t.Ports)) {
				return invalid("spec of %s: task %s checks port %d of %d", s.Owner, t.Name, c.PortIndex, len(t.Ports))
			}
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
