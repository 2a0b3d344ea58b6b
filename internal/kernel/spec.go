package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Limits on what a scheduler may hand in.
const (
	MaxSpecBytes       = 128 << 10 // one spec, encoded
	MaxTasks           = 32        // tasks of one instance
	MaxPorts           = 64        // ports of one instance
	MaxMessage         = 1024      // bytes of a status message kept
	MaxLaunchInstances = 100_000   // instances of one LaunchRequest
	MaxExposed         = 256       // ports of one Expose
	MaxPriority        = 1000      // of a spec; the lowest is -MaxPriority
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
	Strategy    Strategy     `json:"strategy,omitempty"` // which of those; empty: the datacenter's

	// Priority orders placement and preemption among the roles of one top-level group. Below zero an
	// instance runs on what others do not use, and makes way for any of theirs that has none below zero.
	Priority int `json:"priority,omitempty"`

	// Reserved says whether instances use what machines have reserved for their role.
	Reserved Reserved `json:"reserved,omitempty"`

	// Reservation names what outlives the instances of this spec. With a reservation, at most one instance is placed at a
	// time.
	Reservation *Reservation `json:"claim,omitempty"`
}

// Reservation keeps what outlives the instances that are placed with it: the agent they run on, their address and host
// ports, and volumes. The master makes it with the first instance that is placed, keeps later instances with the same
// reservation where it is, gives them the same address and host ports, and frees it when it is told to
// (Kernel.Release). The disk of its volumes counts as used, against the quota too, for as long as the reservation is
// there.
type Reservation struct {
	Name    string           `json:"name"` // unique in the framework: "team-a.control-plane"
	Volumes []ReservedVolume `json:"volumes,omitempty"`
}

// ReservedVolume is a filesystem of its own (ext4 in a sparse file) on the reservation's machine. What a reservation
// has once is never made smaller or anew while it lasts; a later instance whose spec names a larger size grows it.
type ReservedVolume struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// NetworkMode says where an instance's ports are.
type NetworkMode string

// The network modes.
const (
	NetworkHost   NetworkMode = "host"   // the machine's own namespace; ports are host ports
	NetworkBridge NetworkMode = "bridge" // own namespace with an address of the datacenter; host ports are mapped
)

// Network says how an instance is connected.
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

// Strategy says which of the agents that fit is chosen.
type Strategy string

// The strategies.
const (
	StrategySpread  Strategy = "spread"  // with the fewest instances of the same owner, of these the freest
	StrategyBinpack Strategy = "binpack" // the fullest, so that other agents stay free for what is large
)

// Valid reports whether the strategy is one of those, or empty.
func (s Strategy) Valid() bool { return s == "" || s == StrategySpread || s == StrategyBinpack }

// Reserved says what an instance may use of a machine.
type Reserved string

// What an instance may use.
const (
	ReservedToo  Reserved = ""     // what is reserved for its role first, and what is for nobody
	ReservedNone Reserved = "none" // only what is reserved for nobody
	ReservedOnly Reserved = "only" // only what is reserved for its role
)

// Preemptible reports whether instances of the spec run on what others do not use.
func (s *Spec) Preemptible() bool { return s.Priority < 0 }

// TaskSpec is one container of an instance.
type TaskSpec struct {
	Name   string `json:"name"`            // unique in the instance: "_app"
	Suffix string `json:"suffix"`          // task id = instance id + Suffix: "._app.1"
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

	Class Class `json:"class,omitempty"` // what kind of container; empty: an ordinary one
	// programs that Marina brings, read-only under BundleTarget: "kubernetes/v1.37"
	Bundles []string `json:"bundles,omitempty"`
	Files   []File   `json:"files,omitempty"` // put in place before the task starts, in memory
}

// Class names the kind of container that a task gets.
type Class string

// ClassNode is a machine in a container: a user namespace and a range of ids of its own, a network namespace that
// belongs to it, all capabilities within, control groups of its own to divide, no seccomp profile. It has no rights on
// the machine. Its /proc/meminfo says what its limit is, and the directory NodeTarget tells its size, also when that
// changes.
const ClassNode Class = "node"

// Where tasks find what they are given.
const (
	BundleTarget = "/opt/marina"      // a bundle's directory is below, by its name
	NodeTarget   = "/run/marina/node" // of a ClassNode task: the file size.json, a NodeSize, replaced when it changes
)

// NodeSize is a ClassNode task's size, as its file size.json says.
type NodeSize struct {
	MilliCPU int64 `json:"milliCPU"` // the guarantee
	Mem      int64 `json:"mem"`      // bytes, the limit; zero: none
}

// File is given to a task in memory-backed storage of its own, readable by the container's root only.
type File struct {
	Path    string `json:"path"`              // absolute, in the container
	Content []byte `json:"content,omitempty"` // of a file at Path; not for secrets, specs are stored and shown
	// or a reference: Path is then a directory with the files the owner of it gives, kept up to date by rename
	Secret string `json:"secret,omitempty"`
}

// DefaultKillGrace is the time between TERM and KILL when a task's spec does not say.
const DefaultKillGrace = 3 * time.Second

// Field is a value known only once an instance is placed; an agent fills it in.
type Field string

// The fields an EnvVar can take its value from. FieldPort(i) is the i-th port's.
const (
	FieldHost       Field = "host"     // the agent's hostname
	FieldTaskID     Field = "task.id"  // this task's id
	FieldInstanceID Field = "group.id" // its instance's id
	FieldAddress    Field = "address"  // the instance's address
	FieldPorts      Field = "ports"    // all effective ports of the task, comma-separated
)

// FieldPort is the effective port number of the task's i-th port: the host port if there is one, else the container
// port.
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
	Reserved      string `json:"claimed,omitempty"` // or the name of a volume of the spec's reservation
	ReadOnly      bool   `json:"readOnly,omitempty"`
}

// CheckKind names a check's protocol.
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

// Guarantee returns what one instance of this spec takes from an agent, its reservation's volumes included.
func (s *Spec) Guarantee() Resources {
	sum := Resources{Disk: s.Reservation.Disk()}
	for i := range s.Tasks {
		sum = sum.Add(s.Tasks[i].Guarantee)
	}
	return sum
}

// Ports lists the ports of all tasks in order; Assignment.HostPorts has one entry for each.
func (s *Spec) Ports() []Port {
	var out []Port
	for i := range s.Tasks {
		out = append(out, s.Tasks[i].Ports...)
	}
	return out
}

// TaskIDs lists the ids of an instance's tasks, in the order of Tasks.
func (s *Spec) TaskIDs(g InstanceID) []TaskID {
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
	case !s.Strategy.Valid():
		return invalid("spec of %s: placement strategy %q, expected %q or %q", s.Owner, s.Strategy, StrategySpread,
			StrategyBinpack)
	case s.Reserved != ReservedToo && s.Reserved != ReservedNone && s.Reserved != ReservedOnly:
		return invalid("spec of %s: reserved %q, expected %q, %q or nothing", s.Owner, s.Reserved, ReservedNone, ReservedOnly)
	case s.Priority < -MaxPriority || s.Priority > MaxPriority:
		return invalid("spec of %s: priority %d, expected %d to %d", s.Owner, s.Priority, -MaxPriority, MaxPriority)
	case s.Network.Mode != NetworkHost && s.Network.Mode != NetworkBridge:
		return invalid("spec of %s: network mode %q, expected %q or %q", s.Owner, s.Network.Mode, NetworkHost, NetworkBridge)
	}
	if err := s.validateReservation(); err != nil {
		return err
	}
	names := map[string]bool{}
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.Name == "" || t.Suffix == "" || names[t.Name] || names[t.Suffix] {
			return invalid("spec of %s: task %d needs a name and a suffix of its own", s.Owner, i)
		}
		names[t.Name], names[t.Suffix] = true, true
		if err := s.validateTask(t); err != nil {
			return err
		}
	}
	return s.validatePorts()
}

func (s *Spec) validateTask(t *TaskSpec) error {
	switch {
	case !t.Guarantee.Valid():
		return invalid("spec of %s: task %s guarantees less than nothing: %v", s.Owner, t.Name, t.Guarantee)
	case t.Shell != "" && len(t.Argv) > 0:
		return invalid("spec of %s: task %s has both a shell command and arguments", s.Owner, t.Name)
	case t.Image == "" && t.Shell == "" && len(t.Argv) == 0:
		return invalid("spec of %s: task %s has neither an image nor a command", s.Owner, t.Name)
	}
	for _, c := range t.Checks {
		if c.Interval <= 0 || c.Timeout <= 0 {
			return invalid("spec of %s: task %s has a check without interval or timeout", s.Owner, t.Name)
		}
		if c.Kind != CheckCommand && c.PortNumber == 0 && (c.PortIndex < 0 || c.PortIndex >= len(t.Ports)) {
			return invalid("spec of %s: task %s checks port %d of %d", s.Owner, t.Name, c.PortIndex, len(t.Ports))
		}
	}
	return s.validateClass(t)
}

// validatePorts checks what is asked for by all tasks together.
func (s *Spec) validatePorts() error {
	held, ports := map[string]bool{}, 0
	for i := range s.Tasks {
		t := &s.Tasks[i]
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
	}
	return nil
}

// validateClass checks what a task asks for beyond an ordinary container.
func (s *Spec) validateClass(t *TaskSpec) error {
	if t.Class != "" && (t.Class != ClassNode || s.Network.Mode != NetworkBridge || t.Image != "") {
		return invalid("spec of %s: task %s is of class %q; a %q has bridge network and no image", s.Owner, t.Name,
			t.Class, ClassNode)
	}
	for _, b := range t.Bundles {
		if !filepath.IsLocal(b) {
			return invalid("spec of %s: task %s asks for bundle %q, which is no name of one", s.Owner, t.Name, b)
		}
	}
	for _, f := range t.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || (f.Secret != "" && f.Content != nil) {
			return invalid("spec of %s: task %s has a file at %q: expected a clean absolute path and either content or a secret",
				s.Owner, t.Name, f.Path)
		}
	}
	for _, v := range t.Volumes {
		if v.Reserved != "" && (v.HostPath != "" || s.Reservation == nil || !slices.ContainsFunc(s.Reservation.Volumes,
			func(c ReservedVolume) bool { return c.Name == v.Reserved })) {
			return invalid("spec of %s: task %s mounts volume %q, which is not of the spec's reservation", s.Owner,
				t.Name, v.Reserved)
		}
	}
	return nil
}

// maxReservationName bounds names of reservations and their volumes: they become names of files.
const maxReservationName = 100

func (s *Spec) validateReservation() error {
	if s.Reservation == nil {
		return nil
	}
	named := func(n string) bool {
		return n != "" && len(n) <= maxReservationName && n[0] != '.' && !strings.ContainsFunc(n, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.')
		})
	}
	if !named(s.Reservation.Name) || len(s.Reservation.Volumes) > MaxTasks {
		return invalid("spec of %s: reservation %q: expected at most %d of a-z, 0-9, dash and dot", s.Owner,
			s.Reservation.Name, maxReservationName)
	}
	seen := map[string]bool{}
	for _, v := range s.Reservation.Volumes {
		if !named(v.Name) || v.Bytes < 16*MiB || seen[v.Name] {
			return invalid("spec of %s: volume %q of reservation %s: expected a name of its own and at least 16 MiB", s.Owner,
				v.Name, s.Reservation.Name)
		}
		seen[v.Name] = true
	}
	return nil
}

// Disk returns the size of the reservation's volumes together.
func (c *Reservation) Disk() int64 {
	var sum int64
	if c != nil {
		for _, v := range c.Volumes {
			sum = add(sum, v.Bytes)
		}
	}
	return sum
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
