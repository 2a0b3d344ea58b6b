package marathon

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Framework is the name under which the instances of apps are launched.
const Framework = "marathon"

// placementLabel is the label by which an app chooses how it is placed: "spread" or "binpack". Marathon has no field
// for it.
const placementLabel = "MARINA_PLACEMENT"

// priorityLabel is the label by which an app has another priority than 0: -1000 to 1000.
const priorityLabel = "MARINA_PRIORITY"

// priorityOf reads the priority from the app's label, 0 without one.
func priorityOf(a *App) int {
	n, err := strconv.Atoi(a.Labels[priorityLabel])
	if err != nil {
		return 0 // not one: validated before
	}
	return n
}

// reservedFor reads which reserved parts an app accepts: Marathon's "*" is what is reserved for nobody, any
// other role the app's own.
func reservedFor(a *App) kernel.Reserved {
	star := slices.Contains(a.AcceptedResourceRoles, "*")
	switch {
	case len(a.AcceptedResourceRoles) == 0, star && len(a.AcceptedResourceRoles) > 1:
		return kernel.ReservedToo
	case star:
		return kernel.ReservedNone
	}
	return kernel.ReservedOnly
}

// Spec returns the spec of an app's instances. It depends on the app's configuration and not on its number of
// instances, so that scaling leaves running instances as they are. Errors are errdefs.ErrInvalidArgument.
func Spec(a *App) (kernel.Spec, error) {
	t := kernel.TaskSpec{
		Name: "_app", Suffix: TaskSuffix,
		Guarantee: kernel.Resources{MilliCPU: milli(a.CPUs), Mem: bytesOf(a.Mem), Disk: bytesOf(a.Disk), GPUs: int64(a.GPUs)},
		Ports:     specPorts(a),
		Checks:    specChecks(a),
		Env:       specEnv(a),
		Argv:      a.Args,
	}
	if a.CMD != nil {
		t.Shell = *a.CMD
	}
	if a.User != nil {
		t.User = *a.User
	}
	if a.TTY != nil {
		t.TTY = *a.TTY
	}
	if a.TaskKillGracePeriodSeconds != nil {
		t.KillGrace = seconds(*a.TaskKillGracePeriodSeconds)
	}
	if l := a.ResourceLimits; l != nil {
		if l.CPUs != nil {
			t.Limit.MilliCPU = limitOf(*l.CPUs, milli)
		}
		if l.Mem != nil {
			t.Limit.Mem = limitOf(*l.Mem, bytesOf)
		}
	}
	if c := a.Container; c != nil {
		if c.Docker != nil {
			t.Image, t.Pull = c.Docker.Image, c.Docker.ForcePullImage
		}
		for _, v := range c.Volumes {
			t.Volumes = append(t.Volumes, kernel.Volume{ContainerPath: v.ContainerPath, HostPath: v.HostPath,
				ReadOnly: v.Mode == "RO"})
		}
	}
	mode := kernel.NetworkBridge
	if a.HostNetwork() {
		mode = kernel.NetworkHost
	}
	s := kernel.Spec{
		Framework: Framework, Owner: a.ID, Version: a.Config(), Role: Parent(a.ID), Discovery: discovery(a.ID),
		Network: kernel.Network{Mode: mode}, Tasks: []kernel.TaskSpec{t}, Strategy: kernel.Strategy(a.Labels[placementLabel]),
		Priority: priorityOf(a), Reserved: reservedFor(a),
	}
	for _, c := range a.Constraints {
		k := kernel.Constraint{Field: c[0], Operator: c[1]}
		if k.Field == "@hostname" {
			k.Field = "hostname"
		}
		if len(c) > 2 {
			k.Value = c[2]
		}
		s.Constraints = append(s.Constraints, k)
	}
	return s.Seal()
}

// discovery turns "/prod/web" into "web.prod".
func discovery(id string) string {
	parts := split(id)
	slices.Reverse(parts)
	return strings.Join(parts, ".")
}

func milli(cpus float64) int64    { return int64(math.Round(cpus * 1000)) }
func bytesOf(mib float64) int64   { return int64(math.Round(mib * float64(kernel.MiB))) }
func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
func isVIP(label string) bool {
	return strings.HasPrefix(label, "VIP") || strings.HasPrefix(label, "vip")
}
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func limitOf(l Limit, amount func(float64) int64) int64 {
	if math.IsInf(float64(l), 1) {
		return kernel.Unlimited
	}
	return amount(float64(l))
}

// parseVIP reads a VIP label's value: "/name:80" or "198.18.0.1:80".
func parseVIP(s string) (kernel.VIP, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 1 {
		return kernel.VIP{}, fmt.Errorf("VIP %.80q is not <name or address>:<port>", s)
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || port == 0 {
		return kernel.VIP{}, fmt.Errorf("VIP %.80q has no port between 1 and 65535", s)
	}
	vip := kernel.VIP{Port: uint16(port)}
	if addr, err := netip.ParseAddr(strings.Trim(s[:i], "[]")); err == nil {
		vip.Addr = addr
		return vip, nil
	}
	vip.Name = strings.ToLower(strings.ReplaceAll(s[:i], "/", ""))
	if !vipName.MatchString(vip.Name) {
		return kernel.VIP{}, fmt.Errorf(
			"VIP %.80q: a name has letters, digits, - and ., at most 63 characters between dots", s)
	}
	return vip, nil
}

var vipName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

func specPorts(a *App) (out []kernel.Port) {
	if a.HostNetwork() {
		for i, p := range a.PortDefinitions {
			k := newPort(a, i, p.Name, p.Protocol, p.Port, p.Labels)
			if a.RequirePorts {
				k.Host = p.Port
			}
			out = append(out, k)
		}
		return out
	}
	if a.Container == nil {
		return nil
	}
	for i, p := range a.Container.PortMappings {
		k := newPort(a, i, p.Name, p.Protocol, p.ServicePort, p.Labels)
		k.Container, k.Host = uint16(p.ContainerPort), kernel.AnyHostPort
		if p.HostPort != nil {
			k.Host = *p.HostPort
		}
		out = append(out, k)
	}
	return out
}

func newPort(a *App, i int, name *string, protocol string, service int, labels map[string]string) kernel.Port {
	k := kernel.Port{Protocol: protocol, Service: uint16(service), Publish: published(a, i), Labels: labels}
	if name != nil {
		k.Name = *name
	}
	for _, key := range sortedKeys(labels) {
		if isVIP(key) {
			if vip, err := parseVIP(labels[key]); err == nil { // validate has refused the others
				k.VIPs = append(k.VIPs, vip)
			}
		}
	}
	return k
}

// published reports whether the app's i-th service port is open on every machine, as marathon-lb of the group
// "external" would have it: by the label HAPROXY_<i>_GROUP, else HAPROXY_GROUP.
func published(a *App, i int) bool {
	groups, ok := a.Labels[fmt.Sprintf("HAPROXY_%d_GROUP", i)]
	if !ok {
		groups = a.Labels["HAPROXY_GROUP"]
	}
	return slices.Contains(strings.FieldsFunc(groups, func(r rune) bool { return r == ',' || r == ' ' }), "external")
}

// PublishedPorts lists the service ports that the app opens on every machine.
func (a *App) PublishedPorts() (out []int) {
	for i, p := range a.ServicePorts() {
		if p != 0 && published(a, i) {
			out = append(out, p)
		}
	}
	return out
}

func specChecks(a *App) (out []kernel.Check) {
	for _, h := range a.HealthChecks {
		k := kernel.Check{
			Grace: seconds(h.GracePeriodSeconds), Interval: seconds(h.IntervalSeconds), Timeout: seconds(h.TimeoutSeconds),
			MaxFailed: h.MaxConsecutiveFailures,
			Ignore1xx: h.IgnoreHTTP1xx != nil && *h.IgnoreHTTP1xx,
		}
		if h.MesosCheck() {
			k.Delay = seconds(h.DelaySeconds)
		} else if k.Grace == 0 { // Marathon's first run; within a grace an agent asks at once, as failures do not count
			k.Delay = min(k.Interval, 5*time.Second)
		}
		switch strings.TrimPrefix(h.Protocol, "MESOS_") {
		case "HTTP":
			k.Kind = kernel.CheckHTTP
		case "HTTPS":
			k.Kind = kernel.CheckHTTPS
		case "TCP":
			k.Kind = kernel.CheckTCP
		case "COMMAND":
			k.Kind, k.Shell = kernel.CheckCommand, h.Command.Value
		}
		if h.Path != nil {
			k.Path = *h.Path
		}
		if h.Port != nil {
			k.PortNumber = uint16(*h.Port)
		} else if h.PortIndex != nil {
			k.PortIndex = *h.PortIndex
		}
		out = append(out, k)
	}
	return out
}

var notName = regexp.MustCompile(`[^A-Za-z0-9_]+`)

func envName(s string) string { return strings.ToUpper(notName.ReplaceAllString(s, "_")) }

// Limits on labels that become environment variables, Marathon's.
const (
	maxEnvLabelName  = 512 - len("MARATHON_APP_LABEL_")
	maxEnvLabelValue = 512
)

// specEnv lists the environment of an app's instances. Later entries win: context, then ports and host, then the
// app's own.
func specEnv(a *App) []kernel.EnvVar {
	env := []kernel.EnvVar{
		{Name: "MESOS_TASK_ID", From: kernel.FieldTaskID},
		{Name: "MARATHON_APP_ID", Value: a.ID},
		{Name: "MARATHON_APP_VERSION", Value: a.Config()},
		{Name: "MARATHON_APP_RESOURCE_CPUS", Value: number(a.CPUs)},
		{Name: "MARATHON_APP_RESOURCE_MEM", Value: number(a.Mem)},
		{Name: "MARATHON_APP_RESOURCE_DISK", Value: number(a.Disk)},
		{Name: "MARATHON_APP_RESOURCE_GPUS", Value: strconv.Itoa(a.GPUs)},
		{Name: "MARATHON_APP_ENFORCE_GROUP_ROLE", Value: "FALSE"},
	}
	if a.hasImage() && a.Container.Type == "DOCKER" {
		env = append(env, kernel.EnvVar{Name: "MARATHON_APP_DOCKER_IMAGE", Value: a.Container.Docker.Image})
	}
	names := []string{}
	for _, k := range sortedKeys(a.Labels) {
		if name := envName(k); len(k) < maxEnvLabelName && len(a.Labels[k]) < maxEnvLabelValue && name != "" {
			names = append(names, name)
			env = append(env, kernel.EnvVar{Name: "MARATHON_APP_LABEL_" + name, Value: a.Labels[k]})
		}
	}
	env = append(env, kernel.EnvVar{Name: "MARATHON_APP_LABELS", Value: strings.Join(names, " ")},
		kernel.EnvVar{Name: "HOST", From: kernel.FieldHost})
	for i, p := range specPorts(a) {
		field := kernel.FieldPort(i)
		env = append(env, kernel.EnvVar{Name: fmt.Sprintf("PORT%d", i), From: field})
		if i == 0 {
			env = append(env, kernel.EnvVar{Name: "PORT", From: field}, kernel.EnvVar{Name: "PORTS", From: kernel.FieldPorts})
		}
		declared := int(p.Container)
		if a.HostNetwork() {
			declared = int(p.Service)
		}
		if declared != 0 {
			env = append(env, kernel.EnvVar{Name: fmt.Sprintf("PORT_%d", declared), From: field})
		}
		if p.Name != "" {
			env = append(env, kernel.EnvVar{Name: "PORT_" + envName(p.Name), From: field})
		}
	}
	for _, k := range sortedKeys(a.Env) {
		env = append(env, kernel.EnvVar{Name: k, Value: a.Env[k]})
	}
	return env
}
