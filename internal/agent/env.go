package agent

import (
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/node"
	"github.com/marinaos/marina/internal/agent/volume"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// place holds the paths and addresses that an instance's tasks are made with.
type place struct {
	hostname  string     // the machine's
	machine   netip.Addr // its address
	sandbox   string     // the task's, on the machine
	generated string     // directory of the instance's resolv.conf, hosts and hostname
	netns     string
	lent      []string // directories of the machine that tasks may bind

	ids     *kernel.IDRange   // the instance's own on the machine; nil: those that all share
	userns  string            // path of the user namespace of netns, if it has one of its own
	volumes map[string]string // where the reservation's are mounted, by name
	bundles map[string]string // the directories of those the task wants, by name
	files   []runtime.Bind    // the mounts of the task's files
}

// address returns the address at which this machine reaches an instance's ports.
func address(rec *record, machine netip.Addr) netip.Addr {
	if rec.Spec.Network.Mode == kernel.NetworkBridge && rec.Assignment.Address.IsValid() {
		return rec.Assignment.Address
	}
	return machine
}

// portsOf pairs the ports of a task with their host ports, zero where there is none.
func portsOf(rec *record, task int) ([]kernel.Port, []uint16) {
	first := 0
	for i := range task {
		first += len(rec.Spec.Tasks[i].Ports)
	}
	ports := rec.Spec.Tasks[task].Ports
	host := make([]uint16, len(ports))
	for i := range ports {
		if first+i < len(rec.Assignment.HostPorts) {
			host[i] = rec.Assignment.HostPorts[first+i]
		}
	}
	return ports, host
}

// inside is the port a task listens on, seen from its own address.
func inside(mode kernel.NetworkMode, p kernel.Port, host uint16) uint16 {
	if mode == kernel.NetworkHost || p.Container == 0 {
		return host
	}
	return p.Container
}

// effective is the number others use: the host port if there is one, else the container's.
func effective(p kernel.Port, host uint16) uint16 {
	if host != 0 {
		return host
	}
	return p.Container
}

// attachment is an instance's place in the machine's network. ids is its own range, if it has one.
func attachment(rec *record, ids *kernel.IDRange) kernel.Attachment {
	a := kernel.Attachment{Instance: rec.Assignment.ID, Mode: rec.Spec.Network.Mode, Address: rec.Assignment.Address,
		Network: rec.Spec.Network.Name}
	if hasNode(&rec.Spec) {
		a.IDs = ids
	}
	for i := range rec.Spec.Tasks {
		ports, host := portsOf(rec, i)
		for k, p := range ports {
			for _, proto := range strings.Split(p.Protocol, ",") {
				a.Ports = append(a.Ports, kernel.Mapping{Protocol: proto, Container: inside(a.Mode, p, host[k]), Host: host[k]})
			}
		}
	}
	return a
}

// reachable reports whether others connect to the instance by VIPs or published ports, so that they need a moment to
// stop.
func reachable(s *kernel.Spec) bool {
	for _, p := range s.Ports() {
		if p.Publish || len(p.VIPs) > 0 {
			return true
		}
	}
	return false
}

// environment is a task's environment, fields filled in. Later entries win; the sandbox is ours.
func environment(rec *record, task int, w place) []string {
	var names []string
	values := map[string]string{}
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			names = append(names, name)
		}
		values[name] = value
	}
	for _, v := range rec.Spec.Tasks[task].Env {
		if v.From != "" {
			set(v.Name, field(rec, task, w, v.From))
		} else {
			set(v.Name, v.Value)
		}
	}
	set("MESOS_SANDBOX", runtime.SandboxTarget)
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = n + "=" + values[n]
	}
	return out
}

// field is the value of a field for a task; an unknown one is empty.
func field(rec *record, task int, w place, f kernel.Field) string {
	ports, host := portsOf(rec, task)
	switch f {
	case kernel.FieldHost:
		return w.hostname
	case kernel.FieldTaskID:
		return string(rec.Tasks[task].Status.Task)
	case kernel.FieldInstanceID:
		return string(rec.Assignment.ID)
	case kernel.FieldAddress:
		return address(rec, w.machine).String()
	case kernel.FieldPorts:
		var all []string
		for i, p := range ports {
			all = append(all, strconv.Itoa(int(effective(p, host[i]))))
		}
		return strings.Join(all, ",")
	}
	if n, ok := strings.CutPrefix(string(f), "port."); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < len(ports) {
			return strconv.Itoa(int(effective(ports[i], host[i])))
		}
	}
	return ""
}

// limit is the bound a machine sets: the guarantee if the spec names none, and 0, for none, if it says so.
func limit(guarantee, limit int64) int64 {
	switch limit {
	case 0:
		return guarantee
	case kernel.Unlimited:
		return 0
	}
	return limit
}

// container describes a task to the runtime. Errors are of errdefs kinds: invalid, or a volume that is not
// there or not lent.
func container(rec *record, task int, w place) (runtime.Container, error) {
	t := &rec.Spec.Tasks[task]
	r := &rec.Tasks[task]
	limits := limitsOf(rec, task)
	c := runtime.Container{
		ID: r.Container,
		Labels: map[string]string{runtime.LabelGroup: string(rec.Assignment.ID), runtime.LabelTask: string(r.Status.Task),
			runtime.LabelSpec: string(rec.Spec.ID), runtime.LabelBoot: rec.Boot, runtime.LabelAgent: string(rec.Agent)},
		Cgroup: naming.Container(kernel.TaskID(rec.Assignment.ID), rec.Boot) + "/" + r.Container,
		Image:  t.Image, Shell: t.Shell, Argv: t.Argv, User: t.User, TTY: t.TTY,
		Env:      environment(rec, task, w),
		NetNS:    w.netns,
		Stdout:   filepath.Join(w.sandbox, "stdout"),
		Stderr:   filepath.Join(w.sandbox, "stderr"),
		MilliCPU: limits.MilliCPU,
		CPULimit: limits.CPULimit,
		MemLimit: limits.MemLimit,
		PIDLimit: t.PIDs,
		Class:    t.Class,
		IDs:      w.ids,
		UserNS:   w.userns,
		Binds: []runtime.Bind{
			{Source: w.sandbox, Target: runtime.SandboxTarget},
			{Source: filepath.Join(w.generated, "resolv.conf"), Target: "/etc/resolv.conf", ReadOnly: true},
			{Source: filepath.Join(w.generated, "hosts"), Target: "/etc/hosts", ReadOnly: true},
			{Source: filepath.Join(w.generated, "hostname"), Target: "/etc/hostname", ReadOnly: true},
		},
	}
	if rec.Spec.Network.Mode == kernel.NetworkBridge {
		c.Hostname = hostname(rec)
	}
	if t.Image == "" {
		c.Dir = runtime.SandboxTarget
	}
	for _, v := range t.Volumes {
		b, err := volume.Bind(v, w.sandbox, w.volumes, w.lent)
		if err != nil {
			return runtime.Container{}, fmt.Errorf("task %s: %w", t.Name, err)
		}
		c.Binds = append(c.Binds, b)
	}
	for _, name := range t.Bundles {
		c.Binds = append(c.Binds, runtime.Bind{Source: w.bundles[name], Target: path.Join(kernel.BundleTarget, name),
			ReadOnly: true})
	}
	if t.Class == kernel.ClassNode {
		c.Binds = append(c.Binds, node.Binds(filepath.Join(w.generated, nodeDir(task)))...)
	}
	c.Binds = append(c.Binds, w.files...)
	return c, nil
}

// limitsOf returns a task's present limits.
func limitsOf(rec *record, task int) runtime.Limits {
	s := rec.Assignment.Size(&rec.Spec, task)
	return runtime.Limits{
		MilliCPU: s.Guarantee.MilliCPU,
		CPULimit: limit(s.Guarantee.MilliCPU, s.Limit.MilliCPU),
		MemLimit: limit(s.Guarantee.Mem, s.Limit.Mem),
	}
}

// generated is the content of the files every instance is given.
func generated(rec *record, w place, resolver netip.Addr, machineResolv []byte) map[string][]byte {
	name := w.hostname
	if rec.Spec.Network.Mode == kernel.NetworkBridge {
		name = hostname(rec)
	}
	resolv := machineResolv
	if resolver.IsValid() {
		resolv = fmt.Appendf(nil, "nameserver %s\n", resolver)
	}
	hosts := fmt.Appendf(nil, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n%s %s\n",
		address(rec, w.machine), name)
	return map[string][]byte{"resolv.conf": resolv, "hosts": hosts, "hostname": []byte(name + "\n")}
}
