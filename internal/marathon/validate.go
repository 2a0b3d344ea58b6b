package marathon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// MaxAppBytes is the largest app, encoded. What instances are made from has a limit of its own, kernel.MaxSpecBytes.
const MaxAppBytes = 256 << 10

// maxPattern is the longest regular expression of a constraint, in bytes; Mesos has the same.
const maxPattern = 4096

// Validate checks what an app means, after fold. roles are those that it may name. Details are Marathon's where it
// has them.
func (a *App) Validate(roles []string) []Detail {
	v := &validator{}
	if a.CMD != nil && len(a.Args) > 0 || a.CMD == nil && len(a.Args) == 0 && !a.hasImage() {
		v.add("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
	}
	if a.Executor != "" && a.Executor != "//cmd" {
		v.add("/executor", notBuilt("executor"))
	}
	if a.User != nil && !a.hasImage() && a.HostNetwork() && rootUser(*a.User) {
		v.add("/user", "root runs in the machine's network only from an image: "+
			"leave user out, or give the app a bridge network")
	}
	if a.GPUs > 0 && a.Container != nil && a.Container.Type == "DOCKER" {
		v.add("/gpus", "GPU resources only work with the Mesos containerizer")
	}
	if !slices.Contains(roles, a.Role) {
		v.add("/role", fmt.Sprintf("got %s, expected one of: [%s]", a.Role, strings.Join(roles, ", ")))
	}
	for _, r := range a.AcceptedResourceRoles {
		if r != "*" && r != a.Role {
			v.add("/acceptedResourceRoles", fmt.Sprintf("acceptedResourceRoles can only contain * and %s", a.Role))
			break
		}
	}
	if u := a.UnreachableStrategy; u.Inactive > u.Expunge {
		v.add("/unreachableStrategy",
			fmt.Sprintf("inactiveAfterSeconds (%d) must be less or equal to expungeAfterSeconds, which is %d", u.Inactive,
				u.Expunge))
	}
	v.limits(a)
	v.networks(a)
	v.ports(a)
	v.container(a)
	v.constraints(a)
	v.healthChecks(a)
	v.labels(a)
	for name := range a.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			v.add("/env", "names must not be empty and must not contain '='")
		}
	}
	if n := len(must(json.Marshal(a))); n > MaxAppBytes {
		v.add("/", fmt.Sprintf("the app is %d bytes encoded, at most %d fit", n, MaxAppBytes))
	}
	return v.found
}

// rootUser reports whether a user is the machine's root: "root", "0", with or without a group.
func rootUser(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	id, err := strconv.Atoi(name)
	return name == "root" || err == nil && id == 0
}

type validator struct{ found []Detail }

func (v *validator) add(path, text string) {
	v.found = append(v.found, Detail{path, []string{text}})
}

func (a *App) hasImage() bool { return a.Container != nil && a.Container.Docker != nil }

func (v *validator) limits(a *App) {
	if a.ResourceLimits == nil {
		return
	}
	for _, l := range []struct {
		name  string
		limit *Limit
		least float64
	}{{"cpus", a.ResourceLimits.CPUs, a.CPUs}, {"mem", a.ResourceLimits.Mem, a.Mem}} {
		if l.limit != nil && float64(*l.limit) < l.least {
			v.add("/resourceLimits/"+l.name,
				fmt.Sprintf("resource limit must be greater than or equal to requested resource (%s)", number(l.least)))
		}
	}
}

// number writes a double as Marathon does: "128.0", "0.1".
func number(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func (v *validator) networks(a *App) {
	if len(a.Networks) > 1 {
		v.add("/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks")
	}
	for i, n := range a.Networks {
		at := fmt.Sprintf("/networks(%d)", i)
		switch {
		case n.Mode == "container":
			v.add(at+"/mode", notBuilt("mode container (a network by name)"))
		case n.Mode == "host" && (n.Name != "" || len(n.Labels) > 0):
			v.add(at, "Host networks may not have names or labels")
		case n.Mode == "container/bridge" && n.Name != "":
			v.add(at, "Bridge networks may not have names")
		}
	}
}

func (v *validator) ports(a *App) {
	if !a.HostNetwork() && len(a.PortDefinitions) > 0 {
		v.add("/portDefinitions", "portDefinitions are only allowed with host-networking")
	}
	if a.HostNetwork() && a.Container != nil && len(a.Container.PortMappings) > 0 {
		v.add("/container/portMappings", "portMappings are only allowed with networks of mode container or container/bridge")
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	port := func(list string, i int, name *string, nums map[string]int, labels map[string]string) {
		if name != nil && names[*name] {
			v.add(list, "Port names must be unique.")
		}
		if name != nil {
			names[*name] = true
		}
		for key, n := range nums {
			if n != 0 && numbers[key] {
				v.add(list, "Ports must be unique.")
			}
			numbers[key] = true
		}
		for k, val := range labels {
			if isVIP(k) {
				if _, err := parseVIP(val); err != nil {
					v.add(fmt.Sprintf("%s(%d)/labels(%s)", list, i, k), err.Error())
				}
			}
		}
	}
	for i, p := range a.PortDefinitions {
		port("/portDefinitions", i, p.Name, map[string]int{"service " + strconv.Itoa(p.Port): p.Port}, p.Labels)
	}
	if a.Container == nil {
		return
	}
	for i, p := range a.Container.PortMappings {
		if len(p.NetworkNames) > 0 {
			v.add(fmt.Sprintf("/container/portMappings(%d)/networkNames", i), notBuilt("networkNames"))
		}
		nums := map[string]int{
			"service " + strconv.Itoa(p.ServicePort):                  p.ServicePort,
			"container " + p.Protocol + strconv.Itoa(p.ContainerPort): p.ContainerPort}
		if p.HostPort != nil {
			nums["host "+p.Protocol+strconv.Itoa(*p.HostPort)] = *p.HostPort
		}
		port("/container/portMappings", i, p.Name, nums, p.Labels)
	}
}

// ForeignVIPs refuses VIPs whose address is not of the datacenter's range: rules for them would take what machines
// and tasks send to somebody else, on the internet or at this very gateway.
func (a *App) ForeignVIPs(ours netip.Prefix) []Detail {
	v := &validator{}
	check := func(list string, i int, labels map[string]string) {
		for _, k := range sortedKeys(labels) {
			if !isVIP(k) {
				continue
			}
			if vip, err := parseVIP(labels[k]); err == nil && vip.Addr.IsValid() && !ours.Contains(vip.Addr) {
				v.add(fmt.Sprintf("%s(%d)/labels(%s)", list, i, k),
					fmt.Sprintf("address %s is not of this datacenter's VIP range %s", vip.Addr, ours))
			}
		}
	}
	for i, p := range a.PortDefinitions {
		check("/portDefinitions", i, p.Labels)
	}
	if a.Container != nil {
		for i, p := range a.Container.PortMappings {
			check("/container/portMappings", i, p.Labels)
		}
	}
	return v.found
}

// ForeignVolumes refuses directories that the machines do not lend. Root inside of a container is root in what is bound
// into it.
func (a *App) ForeignVolumes(lent []string) []Detail {
	v := &validator{}
	if a.Container == nil || lent == nil {
		return nil
	}
	for i, vol := range a.Container.Volumes {
		isLent := func(dir string) bool { return inDir(vol.HostPath, dir) }
		if vol.HostPath != "" && !slices.ContainsFunc(lent, isLent) {
			v.add(fmt.Sprintf("/container/volumes(%d)/hostPath", i),
				fmt.Sprintf("this datacenter lends %s to no task; its operator can, by marina up --host-volume %s", vol.HostPath,
					vol.HostPath))
		}
	}
	return v.found
}

func inDir(name, dir string) bool {
	name, dir = path.Clean(name), path.Clean(dir)
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

func (v *validator) container(a *App) {
	if a.Container == nil {
		return
	}
	c := a.Container
	if c.Docker == nil && c.Type == "DOCKER" {
		v.add("/container/docker", "not defined")
	}
	for i, vol := range c.Volumes {
		at := fmt.Sprintf("/container/volumes(%d)", i)
		switch {
		case vol.Persistent != nil:
			v.add(at+"/persistent", notBuilt("persistent"))
		case vol.External != nil:
			v.add(at+"/external", notBuilt("external"))
		case vol.Secret != nil:
			v.add(at+"/secret", notBuilt("secret"))
		case vol.HostPath == "":
			v.add(at+"/hostPath", "must not be empty")
		case vol.Mode == "":
			v.add(at+"/mode", "error.path.missing")
		}
		if vol.HostPath == "" {
			continue
		}
		for _, p := range []struct{ name, path string }{{"containerPath", vol.ContainerPath}, {"hostPath", vol.HostPath}} {
			if p.path != "" && (!path.IsAbs(p.path) || path.Clean(p.path) != strings.TrimSuffix(p.path, "/") && p.path != "/") {
				v.add(at+"/"+p.name, "must be an absolute path without . or .. elements")
			}
		}
	}
}

var constraintValue = regexp.MustCompile(`^[a-zA-Z0-9_/.-]*$`)

func (v *validator) constraints(a *App) {
	seen := map[string]bool{}
	for i, c := range a.Constraints {
		at, key := fmt.Sprintf("/constraints(%d)", i), strings.Join(c, "\x00")
		if seen[key] {
			v.add("/constraints", "Each constraint must be unique")
		}
		seen[key] = true
		if len(c) < 2 || len(c) > 3 {
			v.add(at, "Each constraint must have either 2 or 3 fields")
			continue
		}
		if text := constraintError(c); text != "" {
			v.add(at, text)
		}
	}
}

func constraintError(c Constraint) string {
	value, given := "", len(c) == 3
	if given {
		value = c[2]
	}
	_, notInt := strconv.Atoi(value)
	switch c[1] {
	case "UNIQUE":
		if given {
			return "UNIQUE does not accept a value"
		}
	case "CLUSTER":
	case "GROUP_BY":
		if given && notInt != nil {
			return "GROUP BY must define an integer value or else no value at all"
		}
	case "MAX_PER":
		if notInt != nil {
			return "MAX_PER requires an integer value"
		}
	case "LIKE", "UNLIKE":
		if _, err := regexp.Compile(value); err != nil || value == "" || len(value) > maxPattern {
			return "LIKE and UNLIKE require a non-empty, regular expression value"
		}
	case "IS":
		if !given || !constraintValue.MatchString(value) {
			return "IS requires a value of letters, digits and _ / . -"
		}
	default:
		return "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"
	}
	return ""
}

func (v *validator) healthChecks(a *App) {
	mesos := 0
	for i, h := range a.HealthChecks {
		at := fmt.Sprintf("/healthChecks(%d)", i)
		if h.Protocol == "COMMAND" {
			if h.Command == nil {
				v.add(at+"/command", "not defined")
			}
			continue
		}
		if h.MesosCheck() {
			mesos++
		}
		if h.IPProtocol == "IPv6" {
			v.add(at+"/ipProtocol", notBuilt("IPv6"))
		}
		if h.Port == nil && (h.PortIndex == nil || *h.PortIndex >= len(a.ServicePorts())) {
			v.add(at, "Health check port indices must address an element of the ports array or container port mappings.")
		}
	}
	if mesos > 1 {
		v.add("/healthChecks", "AppDefinition can contain at most one Mesos health check")
	}
}

func (v *validator) labels(a *App) {
	if s := kernel.Strategy(a.Labels[placementLabel]); !s.Valid() {
		v.add("/labels("+placementLabel+")", fmt.Sprintf("got %s, expected %s or %s", s, kernel.StrategySpread,
			kernel.StrategyBinpack))
	}
	if text, ok := a.Labels[priorityLabel]; ok {
		if n, err := strconv.Atoi(text); err != nil || n < -kernel.MaxPriority || n > kernel.MaxPriority {
			v.add("/labels("+priorityLabel+")", fmt.Sprintf("got %s, expected a number from %d to %d", text,
				-kernel.MaxPriority, kernel.MaxPriority))
		}
	}
	if a.Labels["MARATHON_SINGLE_INSTANCE_APP"] == "true" {
		if a.Instances > 1 {
			v.add("/instances", "Single instance app may only have one instance")
		}
		for name, got := range map[string]float64{"maximumOverCapacity": a.UpgradeStrategy.MaximumOverCapacity,
			"minimumHealthCapacity": a.UpgradeStrategy.MinimumHealthCapacity} {
			if got != 0 {
				v.add("/upgradeStrategy/"+name, fmt.Sprintf("got %s, expected 0.0", number(got)))
			}
		}
	}
	if a.Labels["DCOS_MIGRATION_API_VERSION"] != "" && (a.Labels["DCOS_MIGRATION_API_PATH"] == "" ||
		a.Labels["DCOS_PACKAGE_FRAMEWORK_NAME"] == "") {
		v.add("/labels", "DCOS_MIGRATION_API_VERSION needs DCOS_MIGRATION_API_PATH and DCOS_PACKAGE_FRAMEWORK_NAME")
	}
}
