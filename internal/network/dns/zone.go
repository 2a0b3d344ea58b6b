package dns

import (
	"crypto/sha1"
	"encoding/base32"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/marinaos/marina/internal/kernel"
)

// zone indexes endpoints and VIPs by the datacenter's names. Answers are pure functions of it.
type zone struct {
	mu    sync.RWMutex
	tasks map[string][]*entry        // by T + "." + F in each spelling
	vips  map[string]map[vipPort]int // by name; how many ports declare it
	// frameworks counts the endpoints of each.
	frameworks map[string]int
}

// entry is an endpoint with its canonical name.
type entry struct {
	kernel.Endpoint
	canonical string // "T-H-S.F"
}

type vipPort struct {
	addr     netip.Addr
	protocol string
	port     uint16
}

// target is one SRV record without its zone's constants.
type target struct {
	name string // absolute
	addr netip.Addr
	port uint16
}

// found has the addresses and SRV targets of a name. The name exists even if both are empty.
type found struct {
	addrs   []netip.Addr
	targets []target
}

func newZone() *zone {
	return &zone{tasks: map[string][]*entry{}, vips: map[string]map[vipPort]int{}, frameworks: map[string]int{}}
}

func (z *zone) applyEndpoints(removed, added []kernel.Endpoint) {
	z.mu.Lock()
	defer z.mu.Unlock()
	gone := map[string]map[kernel.TaskID]bool{} // by name: one pass over each, however many leave it
	for i := range removed {
		e := &removed[i]
		_, names := spellings(e)
		for _, name := range names {
			if gone[name] == nil {
				gone[name] = map[kernel.TaskID]bool{}
			}
			gone[name][e.Task] = true
		}
		z.countNames(e, -1)
	}
	for name, tasks := range gone {
		z.tasks[name] = slices.DeleteFunc(z.tasks[name], func(x *entry) bool { return tasks[x.Task] })
		if len(z.tasks[name]) == 0 {
			delete(z.tasks, name)
		}
	}
	for i := range added {
		canonical, names := spellings(&added[i])
		e := &entry{added[i], canonical}
		if e.Running {
			for _, name := range names {
				z.tasks[name] = append(z.tasks[name], e)
			}
		}
		z.countNames(&e.Endpoint, 1)
	}
}

func (z *zone) countNames(e *kernel.Endpoint, by int) {
	framework := fragment(e.Framework)
	if z.frameworks[framework] += by; z.frameworks[framework] <= 0 {
		delete(z.frameworks, framework)
	}
	for _, p := range e.Ports {
		for _, v := range p.VIPs {
			if v.Name == "" {
				continue
			}
			name := strings.ToLower(v.Name)
			if z.vips[name] == nil {
				z.vips[name] = map[vipPort]int{}
			}
			at := vipPort{v.Addr, p.Protocol, v.Port}
			if z.vips[name][at] += by; z.vips[name][at] <= 0 {
				delete(z.vips[name], at)
			}
			if len(z.vips[name]) == 0 {
				delete(z.vips, name)
			}
		}
	}
}

// spellings returns all names of an endpoint below its zones, the canonical one among them.
func spellings(e *kernel.Endpoint) (canonical string, all []string) {
	name := e.Discovery
	if name == "" {
		name = reversed(e.Owner)
	}
	dashed, framework := label(name), fragment(e.Framework)
	canonical = canonicalLabel(dashed, e) + "." + framework
	all = []string{canonical}
	for _, t := range []string{dashed, fragment(name)} {
		for _, f := range []string{framework, label(e.Framework)} {
			if n := t + "." + f; !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	return canonical, all
}

// reversed returns Marathon's discovery name of an id: "/prod/web" gives "web.prod".
func reversed(id string) string {
	parts := strings.FieldsFunc(id, func(r rune) bool { return r == '/' })
	slices.Reverse(parts)
	return strings.Join(parts, ".")
}

const maxLabel = 63 // bytes, RFC 1035

// label turns any string into one label: letters, digits and dashes, at most 63, no dash at either end. Dashes at the
// cut are dropped and what follows them moves up.
func label(s string) string {
	var b []byte
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b = append(b, c)
		case c >= 'A' && c <= 'Z':
			b = append(b, c+'a'-'A')
		case c == '-' || c == '.' || c == '_':
			b = append(b, '-')
		}
	}
	s = strings.Trim(string(b), "-")
	if len(s) <= maxLabel {
		return s
	}
	head, rest := strings.TrimRight(s[:maxLabel], "-"), strings.TrimLeft(s[maxLabel:], "-")
	return strings.TrimRight(head+rest[:min(len(rest), maxLabel-len(head))], "-")
}

// fragment turns any string into a part of a domain name, label by label.
func fragment(s string) string {
	var out []string
	for part := range strings.SplitSeq(s, ".") {
		if l := label(part); l != "" {
			out = append(out, l)
		}
	}
	return strings.Join(out, ".")
}

var zbase32 = base32.NewEncoding("ybndrfg8ejkmcpqxot1uwisza345h769").WithPadding(base32.NoPadding)

// canonicalLabel returns T-H-S; T is cut so that the whole is one label.
func canonicalLabel(t string, e *kernel.Endpoint) string {
	sum := sha1.Sum([]byte(e.Task))
	agent := string(e.Agent)
	end := "-" + zbase32.EncodeToString(sum[:])[:5] + "-" + label(agent[strings.LastIndexByte(agent, '-')+1:])
	if len(end) > maxLabel {
		end = end[:maxLabel]
	}
	return strings.TrimRight(t[:min(len(t), maxLabel-len(end))], "-") + end
}

// autoAddr returns the address at which a task's ports are reached: its machine's if any port has a host port or the
// task has no address of its own.
func autoAddr(e *kernel.Endpoint) netip.Addr {
	if !e.Address.IsValid() || slices.ContainsFunc(e.Ports, func(p kernel.EndpointPort) bool { return p.Host != 0 }) {
		return e.Machine
	}
	return e.Address
}

func containerAddr(e *kernel.Endpoint) netip.Addr {
	if e.Address.IsValid() {
		return e.Address
	}
	return e.Machine
}

func machineAddr(e *kernel.Endpoint) netip.Addr { return e.Machine }

const directory = ".dcos.thisdcos.directory."

// srvTarget returns the SRV target of a port, if it can be reached at all.
func srvTarget(e *entry, p kernel.EndpointPort) (target, bool) {
	switch {
	case p.Host != 0:
		return target{e.canonical + ".mesos.", autoAddr(&e.Endpoint), p.Host}, true
	case !e.Address.IsValid() || p.Container == 0:
		return target{}, false
	case autoAddr(&e.Endpoint) == e.Address:
		return target{e.canonical + ".mesos.", e.Address, p.Container}, true
	}
	return target{e.canonical + ".containerip" + directory, e.Address, p.Container}, true
}

// mesos answers for name.mesos, without leader and masters.
func (z *zone) mesos(name string) (found, bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	before, slave := strings.CutSuffix(name, ".slave")
	port, task, protocol, framework, isService := splitService(before)
	if !isService {
		if slave {
			return z.addresses(before, machineAddr)
		}
		return z.addresses(name, autoAddr)
	}
	list, ok := z.tasks[task+"."+framework]
	if !ok || slave && port != "" {
		return found{}, false
	}
	f, any := found{}, port == ""
	for _, e := range list {
		for _, p := range e.Ports {
			t, reached := srvTarget(e, p)
			if slave {
				t, reached = target{e.canonical + ".slave.mesos.", e.Machine, p.Host}, p.Host != 0
			}
			if reached && p.Protocol == protocol && (port == "" || label(p.Name) == port) {
				f.targets, any = append(f.targets, t), true
			}
		}
	}
	return f, any
}

// dcos answers for name.dcos.thisdcos.directory.
func (z *zone) dcos(name string) (found, bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return found{}, false
	}
	switch name[i+1:] {
	case "agentip":
		return z.addresses(name[:i], machineAddr)
	case "containerip":
		return z.addresses(name[:i], containerAddr)
	case "autoip":
		return z.addresses(name[:i], autoAddr)
	}
	return found{}, false
}

// addresses looks a task name up; the read lock is held.
func (z *zone) addresses(name string, which func(*kernel.Endpoint) netip.Addr) (found, bool) {
	list, ok := z.tasks[name]
	seen := make(map[netip.Addr]bool, len(list))
	var f found
	for _, e := range list {
		if a := which(&e.Endpoint); a.IsValid() && !seen[a] {
			seen[a] = true
			f.addrs = append(f.addrs, a)
		}
	}
	return f, ok
}

// l4lb answers for name.l4lb.thisdcos.directory.
func (z *zone) l4lb(name string) (found, bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	_, vip, protocol, framework, isService := splitService(name)
	if isService {
		name = vip + "." + framework
	}
	all, ok := z.vips[name]
	var f found
	for at := range all {
		if isService && at.protocol == protocol {
			f.targets = append(f.targets, target{name + ".l4lb.thisdcos.directory.", at.addr, at.port})
		} else if !isService && !slices.Contains(f.addrs, at.addr) {
			f.addrs = append(f.addrs, at.addr)
		}
	}
	return f, ok && (!isService || len(f.targets) > 0)
}

// framework reports whether any task belongs to the framework.
func (z *zone) framework(name string) bool {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return z.frameworks[name] > 0
}

// splitService takes "_port._task._tcp.framework" apart; a task's name may have dots.
func splitService(name string) (port, task, protocol, framework string, ok bool) {
	for _, p := range []string{"tcp", "udp"} {
		before, after, cut := strings.Cut(name, "._"+p+".")
		if !cut || !strings.HasPrefix(before, "_") {
			continue
		}
		port, task, two := strings.Cut(before[1:], "._")
		if !two {
			port, task = "", port
		}
		return port, task, p, after, true
	}
	return "", "", "", "", false
}

// masterNumber parses N of masterN.
func masterNumber(name string) (int, bool) {
	num, ok := strings.CutPrefix(name, "master")
	n, err := strconv.Atoi(num)
	return n, ok && err == nil && n >= 0
}
