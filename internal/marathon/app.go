package marathon

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// App is Marathon's app as it goes over the wire and into the store. Values are immutable once accepted: a change is
// another App with another Version. The raml tags are read by conform: they hold defaults and limits of the input.
type App struct {
	ID                         string              `json:"id" raml:"required,minLength=1"`
	AcceptedResourceRoles      []string            `json:"acceptedResourceRoles,omitempty"`
	Args                       []string            `json:"args,omitempty"`
	BackoffFactor              float64             `json:"backoffFactor" raml:"default=1.15,min=1,max=1000"`
	BackoffSeconds             int                 `json:"backoffSeconds" raml:"default=1,min=0,max=31536000"`
	CMD                        *string             `json:"cmd,omitempty" raml:"minLength=1"`
	Constraints                []Constraint        `json:"constraints,omitempty"`
	Container                  *Container          `json:"container,omitempty"`
	CPUs                       float64             `json:"cpus" raml:"default=1,min=0.001,max=1000000"`
	Dependencies               []string            `json:"dependencies,omitempty"`
	Disk                       float64             `json:"disk" raml:"default=0,min=0,max=1000000000"`
	Env                        map[string]string   `json:"env,omitempty"`
	Executor                   string              `json:"executor" raml:"default=\"\""`
	GPUs                       int                 `json:"gpus" raml:"default=0,min=0,max=1000000"`
	HealthChecks               []HealthCheck       `json:"healthChecks,omitempty"`
	Instances                  int                 `json:"instances" raml:"default=1,min=0,max=100000"`
	KillSelection              string              `json:"killSelection" raml:"default=\"YOUNGEST_FIRST\",enum=YOUNGEST_FIRST|OLDEST_FIRST"`
	Labels                     map[string]string   `json:"labels" raml:"default={}"`
	MaxLaunchDelaySeconds      int                 `json:"maxLaunchDelaySeconds" raml:"default=300,min=0,max=31536000"`
	Mem                        float64             `json:"mem" raml:"default=128,min=0,max=1000000000"`
	Networks                   []Network           `json:"networks" raml:"default=[]"`
	PortDefinitions            []PortDefinition    `json:"portDefinitions,omitzero"` // nil: not in host mode
	RequirePorts               bool                `json:"requirePorts" raml:"default=false"`
	ResourceLimits             *ResourceLimits     `json:"resourceLimits,omitempty"`
	Role                       string              `json:"role" raml:"default=\"\""`
	TaskKillGracePeriodSeconds *int                `json:"taskKillGracePeriodSeconds,omitempty" raml:"min=0,max=31536000"`
	TTY                        *bool               `json:"tty,omitempty"`
	UnreachableStrategy        UnreachableStrategy `json:"unreachableStrategy" raml:"default={}"`
	UpgradeStrategy            UpgradeStrategy     `json:"upgradeStrategy" raml:"default={\"minimumHealthCapacity\":1,\"maximumOverCapacity\":1}"`
	User                       *string             `json:"user,omitempty" raml:"minLength=1"`
	Version                    string              `json:"version,omitempty"`
	VersionInfo                *VersionInfo        `json:"versionInfo,omitempty"`

	// Input only: fold turns it into PortDefinitions.
	Ports []int `json:"ports,omitempty" raml:"min=0,max=65535"`
}

// VersionInfo tells when an app last changed. LastConfigChangeAt is the version its instances carry, so that scaling
// alone leaves them as they are.
type VersionInfo struct {
	LastScalingAt      string `json:"lastScalingAt"`
	LastConfigChangeAt string `json:"lastConfigChangeAt"`
}

// Constraint is [field, operator] or [field, operator, value].
type Constraint []string

// Network is the mode in which instances are connected: "host", or "container/bridge".
type Network struct {
	Mode   string            `json:"mode" raml:"default=\"container\",enum=host|container|container/bridge"`
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// PortDefinition is a port of an app in host mode. Port is its service port; with requirePorts its host port too.
type PortDefinition struct {
	Labels   map[string]string `json:"labels" raml:"default={}"`
	Name     *string           `json:"name,omitempty" raml:"pattern=name"`
	Port     int               `json:"port" raml:"default=0,min=0,max=65535"`
	Protocol string            `json:"protocol" raml:"default=\"tcp\",enum=tcp|udp|udp,tcp"`
}

// PortMapping is a port of an app with a network of its own.
type PortMapping struct {
	ContainerPort int               `json:"containerPort" raml:"default=0,min=0,max=65535"`
	HostPort      *int              `json:"hostPort,omitempty" raml:"min=0,max=65535"`
	Labels        map[string]string `json:"labels" raml:"default={}"`
	Name          *string           `json:"name,omitempty" raml:"pattern=name"`
	NetworkNames  []string          `json:"networkNames,omitempty"`
	Protocol      string            `json:"protocol" raml:"default=\"tcp\",enum=tcp|udp|udp,tcp"`
	ServicePort   int               `json:"servicePort" raml:"default=0,min=0,max=65535"`
}

// Container configures the container of an app. Type is kept and shown; both run the same way here.
type Container struct {
	Type         string        `json:"type" raml:"default=\"DOCKER\",enum=DOCKER|MESOS"`
	Docker       *Docker       `json:"docker,omitempty"`
	PortMappings []PortMapping `json:"portMappings,omitzero"` // nil: host mode
	Volumes      []Volume      `json:"volumes" raml:"default=[]"`
}

// Docker names the image of a container.
type Docker struct {
	ForcePullImage bool            `json:"forcePullImage" raml:"default=false"`
	Image          string          `json:"image" raml:"required,minLength=1,maxLength=1024"`
	Parameters     []Parameter     `json:"parameters" raml:"default=[]"`
	Privileged     bool            `json:"privileged" raml:"default=false"`
	Network        string          `json:"network,omitempty" raml:"enum=HOST|BRIDGE|USER|NONE"` // input only
	PortMappings   []PortMapping   `json:"portMappings,omitempty"`                              // input only
	PullConfig     json.RawMessage `json:"pullConfig,omitempty"`
}

// Parameter is a command line option for Docker.
type Parameter struct {
	Key   string `json:"key" raml:"required"`
	Value string `json:"value" raml:"required"`
}

// Volume mounts a path of the machine. The other kinds are refused by name.
type Volume struct {
	ContainerPath string          `json:"containerPath" raml:"required,minLength=1,maxLength=1024"`
	HostPath      string          `json:"hostPath,omitempty" raml:"maxLength=1024"`
	Mode          string          `json:"mode,omitempty" raml:"enum=RO|RW"`
	Persistent    json.RawMessage `json:"persistent,omitempty"`
	External      json.RawMessage `json:"external,omitempty"`
	Secret        json.RawMessage `json:"secret,omitempty"`
}

// HealthCheck says how an instance is asked whether it works.
type HealthCheck struct {
	Command                *Command `json:"command,omitempty"`
	DelaySeconds           int      `json:"delaySeconds" raml:"default=15,min=0,max=31536000"`
	GracePeriodSeconds     int      `json:"gracePeriodSeconds" raml:"default=300,min=0,max=31536000"`
	IgnoreHTTP1xx          *bool    `json:"ignoreHttp1xx,omitempty"`
	IntervalSeconds        int      `json:"intervalSeconds" raml:"default=60,min=1,max=31536000"`
	IPProtocol             string   `json:"ipProtocol" raml:"default=\"IPv4\",enum=IPv4|IPv6"`
	MaxConsecutiveFailures int      `json:"maxConsecutiveFailures" raml:"default=3,min=0,max=1000000"`
	Path                   *string  `json:"path,omitempty" raml:"maxLength=4096"`
	Port                   *int     `json:"port,omitempty" raml:"min=1,max=65535"`
	PortIndex              *int     `json:"portIndex,omitempty" raml:"min=0,max=65535"`
	Protocol               string   `json:"protocol" raml:"default=\"HTTP\",enum=HTTP|HTTPS|TCP|COMMAND|MESOS_TCP|MESOS_HTTP|MESOS_HTTPS"`
	TimeoutSeconds         int      `json:"timeoutSeconds" raml:"default=20,min=1,max=31536000"`
}

// Command is a shell command.
type Command struct {
	Value string `json:"value" raml:"required,minLength=1"`
}

// UpgradeStrategy bounds an app's instances while its configuration changes, as shares of the instances it should have.
type UpgradeStrategy struct {
	MaximumOverCapacity   float64 `json:"maximumOverCapacity" raml:"required,min=0,max=1"`
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity" raml:"required,min=0,max=1"`
}

// UnreachableStrategy says what becomes of instances on machines that do not answer. On the wire it is an object or
// "disabled".
type UnreachableStrategy struct {
	Disabled bool
	Inactive int // seconds until a replacement starts
	Expunge  int // seconds until the instance is given up
}

type unreachableJSON struct {
	InactiveAfterSeconds int `json:"inactiveAfterSeconds" raml:"default=0,min=0,max=31536000"`
	ExpungeAfterSeconds  int `json:"expungeAfterSeconds" raml:"default=0,min=0,max=31536000"`
}

// MarshalJSON writes the wire form.
func (u UnreachableStrategy) MarshalJSON() ([]byte, error) {
	if u.Disabled {
		return []byte(`"disabled"`), nil
	}
	return json.Marshal(unreachableJSON{u.Inactive, u.Expunge})
}

// UnmarshalJSON reads the wire form.
func (u *UnreachableStrategy) UnmarshalJSON(b []byte) error {
	if string(b) == `"disabled"` {
		*u = UnreachableStrategy{Disabled: true}
		return nil
	}
	var w unreachableJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*u = UnreachableStrategy{Inactive: w.InactiveAfterSeconds, Expunge: w.ExpungeAfterSeconds}
	return nil
}

// ResourceLimits bound a task's use above what it is guaranteed.
type ResourceLimits struct {
	CPUs *Limit `json:"cpus,omitempty"`
	Mem  *Limit `json:"mem,omitempty"`
}

// Limit is a number or +Inf, which the wire calls "unlimited".
type Limit float64

// MarshalJSON writes the wire form.
func (l Limit) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(l), 1) {
		return []byte(`"unlimited"`), nil
	}
	return json.Marshal(float64(l))
}

// UnmarshalJSON reads the wire form.
func (l *Limit) UnmarshalJSON(b []byte) error {
	if string(b) == `"unlimited"` {
		*l = Limit(math.Inf(1))
		return nil
	}
	return json.Unmarshal(b, (*float64)(l))
}

// Config is the version that instances of the app carry: it changes with everything but their number.
func (a *App) Config() string {
	if a.VersionInfo == nil {
		return a.Version
	}
	return a.VersionInfo.LastConfigChangeAt
}

// HostNetwork reports whether the app's instances share the machine's network.
func (a *App) HostNetwork() bool { return len(a.Networks) == 0 || a.Networks[0].Mode == "host" }

// MesosCheck reports whether the check belongs to the kinds that Marathon has its agents run: their first failure
// after the grace period counts even with maxConsecutiveFailures 0.
func (h *HealthCheck) MesosCheck() bool {
	return h.Protocol == "COMMAND" || h.Protocol == "MESOS_TCP" || h.Protocol == "MESOS_HTTP" ||
		h.Protocol == "MESOS_HTTPS"
}

// ServicePorts lists the app's service ports, in order of its ports.
func (a *App) ServicePorts() []int {
	out := []int{}
	for _, p := range a.PortDefinitions {
		out = append(out, p.Port)
	}
	if a.Container != nil {
		for _, p := range a.Container.PortMappings {
			out = append(out, p.ServicePort)
		}
	}
	return out
}

// SameConfig reports whether two apps differ in nothing but the number of instances.
func SameConfig(a, b *App) bool {
	return string(configBytes(a)) == string(configBytes(b))
}

func configBytes(a *App) []byte {
	c := *a
	c.Version, c.VersionInfo, c.Instances = "", nil, 0
	return must(json.Marshal(c))
}

// must is for values that always encode.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // this cannot be: own types without cycles, channels or NaN
	}
	return v
}

// Clone copies the app so far that its ports may be assigned in the copy.
func (a *App) Clone() *App {
	c := *a
	c.PortDefinitions = slices.Clone(a.PortDefinitions)
	if a.Container != nil {
		k := *a.Container
		k.PortMappings = slices.Clone(a.Container.PortMappings)
		c.Container = &k
	}
	return &c
}

// Intact returns what is wrong with an app's row although it could be decoded: it would be taken for another app, or
// for one without instances.
func (a *App) Intact(id string) error {
	if a.ID != id {
		return fmt.Errorf("it says that it is app %.60q", a.ID)
	}
	versions := []string{a.Version}
	if a.VersionInfo != nil {
		versions = append(versions, a.VersionInfo.LastConfigChangeAt)
	}
	for _, v := range versions {
		if _, ok := ParseTimestamp(v); !ok {
			return fmt.Errorf("it is of no version that there is: %.60q", v)
		}
	}
	return nil
}
