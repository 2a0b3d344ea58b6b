package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/marinaos/marina/internal/network"
	"golang.org/x/sys/unix"
)

// Trace lists what of a datacenter is on the machine, by kind.
type Trace struct {
	Kinds map[string][]string
	links map[int]string // its links by index, ports of its bridge too
}

// Names under which a datacenter is on the machine.
func (h *Datacenter) bridge() string { return "mar" + h.ID[:6] }
func (h *Datacenter) run0() string   { return "/run/marina-" + h.ID }

// Trace looks for everything of the datacenter. Links that an earlier trace knew are looked for although their bridge
// is gone.
func (h *Datacenter) Trace(earlier *Trace) (*Trace, error) {
	t := &Trace{Kinds: map[string][]string{}, links: map[int]string{}}
	if earlier != nil {
		t.links = maps.Clone(earlier.links)
	}
	err := errors.Join(h.processes(t), h.mounts(t), h.links(t), h.tables(t), h.routes(t), h.cgroups(t), h.files(t))
	return t, err
}

func (t *Trace) add(kind, format string, args ...any) {
	t.Kinds[kind] = append(t.Kinds[kind], fmt.Sprintf(format, args...))
}

// Missing lists the kinds of which nothing was found.
func (t *Trace) Missing() []string {
	var out []string
	for _, kind := range []string{"process", "mount", "namespace", "link", "table", "route", "cgroup", "file"} {
		if len(t.Kinds[kind]) == 0 {
			out = append(out, kind)
		}
	}
	return out
}

// Witness notes what there is of the datacenter while tasks run, and fails if it finds nothing of some kind: then
// leftovers of that kind would not be found either.
func (h *Datacenter) Witness() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.readRanges(); err != nil {
		return err
	}
	t, err := h.Trace(h.witness)
	if err != nil {
		return err
	}
	h.witness = t
	if m := t.Missing(); len(m) > 0 {
		return fmt.Errorf("a running datacenter shows no %s: the search for leftovers looks in the wrong place",
			strings.Join(m, ", "))
	}
	return nil
}

// leftovers lists what there is of a datacenter that was taken away.
func (h *Datacenter) leftovers() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, err := h.Trace(h.witness)
	errs := []error{err}
	for _, kind := range slices.Sorted(maps.Keys(t.Kinds)) {
		for _, what := range t.Kinds[kind] {
			errs = append(errs, fmt.Errorf("  %s %s", kind, what))
		}
	}
	if now := sysctl("net/ipv4/ip_forward"); now != h.forward && !othersHere() {
		errs = append(errs, fmt.Errorf("  setting net.ipv4.ip_forward was %s and is %s", h.forward, now))
	}
	return errors.Join(errs...)
}

// end kills what is left of the datacenter's processes, so that a failed test does not leave them running.
func (h *Datacenter) end() {
	t, _ := h.Trace(nil)
	for _, p := range t.Kinds["process"] {
		if pid, err := strconv.Atoi(strings.Fields(p)[0]); err == nil {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func sysctl(name string) string {
	b, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(b))
}

// othersHere reports whether another datacenter is on the machine: it may need settings that were changed first for
// this one.
func othersHere() bool {
	links, _ := network.CompleteList(netlink.LinkList)
	return slices.ContainsFunc(links, func(l netlink.Link) bool {
		return l.Type() == "bridge" && strings.HasPrefix(l.Attrs().Name, "mar")
	})
}

// processes finds those with the datacenter's mark in their environment, in its cgroup, or with its directories in
// their command.
func (h *Datacenter) processes(t *Trace) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		env, _ := os.ReadFile(dir + "/environ")
		group, _ := os.ReadFile(dir + "/cgroup")
		cmd, _ := os.ReadFile(dir + "/cmdline")
		inGroup := strings.Contains(string(group), "/marina-"+h.ID)
		if pid == os.Getpid() || !inGroup && !strings.Contains("\x00"+string(env), "\x00"+markName+"="+h.mark+"\x00") &&
			!strings.Contains(string(cmd), h.State) && !strings.Contains(string(cmd), h.run0()) {
			continue
		}
		t.add("process", "%d %s", pid, strings.ReplaceAll(string(cmd), "\x00", " "))
	}
	return err
}

// mounts finds what is mounted in the datacenter's directories or of them; its network namespaces are such mounts. A
// namespace that only a process holds goes with that.
func (h *Datacenter) mounts(t *Trace) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // id parent device root mountpoint ... - type source options
		if len(f) < 10 || !strings.Contains(line, h.State+"/") && !strings.Contains(line, h.run0()) &&
			!strings.Contains(line, "marina-"+h.ID) {
			continue
		}
		t.add("mount", "%s", f[4])
		if strings.HasPrefix(f[3], "net:[") {
			t.add("namespace", "%s at %s", f[3], f[4])
		}
	}
	return nil
}

// links finds the bridge, its ports, and links that were its ports.
func (h *Datacenter) links(t *Trace) error {
	all, err := network.CompleteList(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	bridge := -1
	for _, l := range all {
		if l.Attrs().Name == h.bridge() {
			bridge = l.Attrs().Index
		}
	}
	for _, l := range all {
		a := l.Attrs()
		_, was := t.links[a.Index]
		if a.Index == bridge || a.MasterIndex == bridge || was && t.links[a.Index] == a.Name {
			t.links[a.Index] = a.Name
			t.add("link", "%s", a.Name)
		}
	}
	return nil
}

func (h *Datacenter) tables(t *Trace) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	all, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("nftables tables: %w", err)
	}
	for _, x := range all {
		if strings.Contains(x.Name, h.ID) {
			t.add("table", "%s", x.Name)
		}
	}
	return nil
}

// readRanges learns which addresses the datacenter took.
func (h *Datacenter) readRanges() error {
	var l struct{ Pool, VIPs netip.Prefix }
	b, err := os.ReadFile(filepath.Join(h.State, "network", "layout.json"))
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return fmt.Errorf("address ranges: %w", err)
	}
	h.ranges = []netip.Prefix{l.Pool, l.VIPs}
	return nil
}

// routes finds those into the datacenter's address ranges, in every table.
func (h *Datacenter) routes(t *Trace) error {
	all, err := network.CompleteList(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range all {
		if r.Dst == nil {
			continue
		}
		a, _ := netip.AddrFromSlice(r.Dst.IP.To4())
		for _, p := range h.ranges {
			if bits, _ := r.Dst.Mask.Size(); bits > 0 && p.Overlaps(netip.PrefixFrom(a, bits)) {
				t.add("route", "%v", r)
			}
		}
	}
	rules, err := network.CompleteList(func() ([]netlink.Rule, error) { return netlink.RuleList(netlink.FAMILY_V4) })
	for _, r := range rules {
		for _, p := range h.ranges {
			if strings.Contains(r.String(), p.Addr().String()) {
				t.add("route", "%v", r)
			}
		}
	}
	return err
}

func (h *Datacenter) cgroups(t *Trace) error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, "marina-"+h.ID) {
			t.add("cgroup", "%s", path)
			return fs.SkipDir
		}
		return nil // directories come and go
	})
}

// files looks where a datacenter keeps files, and where the programs it uses would without being told otherwise.
func (h *Datacenter) files(t *Trace) error {
	for _, path := range []string{h.State, h.run0()} {
		if _, err := os.Lstat(path); err == nil {
			t.add("file", "%s", path)
		}
	}
	for _, pattern := range []string{"/run/*", "/var/run/netns/*", "/var/lib/*", "/var/lib/cni/*", "/etc/cni/*",
		"/tmp/*", "/dev/shm/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range found {
			if strings.Contains(path, h.ID) && path != h.run0() {
				t.add("file", "%s", path)
			}
		}
	}
	for _, path := range strangers {
		if _, err := os.Lstat(path); err == nil && !h.strangers[path] {
			t.add("file", "%s, which was not there before", path)
		}
	}
	return nil
}

// strangers are the default places of programs that a datacenter has places of its own for.
var strangers = []string{"/run/containerd", "/run/runc", "/var/lib/containerd", "/var/lib/cni", "/etc/containerd",
	"/opt/containerd",
	"/var/run/netns", "/run/netns", "/var/lib/nerdctl", "/root/.config/marina"}

func presentStrangers() map[string]bool {
	out := map[string]bool{}
	for _, path := range strangers {
		if _, err := os.Lstat(path); err == nil {
			out[path] = true
		}
	}
	return out
}
