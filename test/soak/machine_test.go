package soak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"github.com/marinaos/marina/test/testbed"
)

// count is something of which there are so many, and which.
type count struct {
	what  string
	n     int
	names []string // empty where there are too many or none
	exact bool     // has to be as before
	comes bool     // with every cluster
}

// counted counts what there is of a datacenter, in the order of the table.
type counted struct {
	counts []count
	values []value
}

// value is an amount of something that may change.
type value struct {
	what, unit string
	n          float64
}

func (c *counted) add(what string, exact, comes bool, names []string) {
	slices.Sort(names)
	c.counts = append(c.counts, count{what, len(names), names, exact, comes})
}

// longLived are the processes that outlive every cluster.
var longLived = []string{"daemon", "agent", "containerd"}

// private is the memory that each of the long-lived processes has for itself, in a line.
func private(h *testbed.Datacenter) string {
	var out []string
	for _, name := range longLived {
		text := "?"
		if pid, err := h.PID(name); err == nil {
			text = fmt.Sprintf("%.1f", status(pid, "RssAnon")/1024)
		}
		out = append(out, fmt.Sprintf("%*s", len(name), text))
	}
	return strings.Join(out, "  ")
}

// look counts everything of a datacenter.
func look(h *testbed.Datacenter) (*counted, error) {
	c := &counted{}
	t, err := h.Trace(nil)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"process", "mount", "link", "route"} {
		c.add(kind, true, kind != "route", t.Kinds[kind])
	}
	pids := own(t)
	c.add("namespace", true, true, namespaces(h, pids))
	groups, err := cgroups(h)
	if err != nil {
		return nil, err
	}
	c.add("cgroup, all hierarchies", true, true, groups)
	rules, elements, err := firewall(h)
	if err != nil {
		return nil, err
	}
	c.add("nftables chain or rule", true, false, rules)
	c.add("nftables set element", true, true, elements)
	c.add("loop device", true, true, loops(h))
	files, bytes, err := tree(h.State)
	if err != nil {
		return nil, err
	}
	c.add("file in the state directory", false, true, files)
	c.values = append(c.values, value{"state directory, on disk", "MiB", bytes})
	for _, name := range longLived {
		pid, err := h.PID(name)
		if err != nil {
			return nil, err
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		c.values = append(c.values, value{name + ", resident", "MiB", status(pid, "VmRSS") / 1024},
			value{name + ", private", "MiB", status(pid, "RssAnon") / 1024},
			value{name + ", threads", "", status(pid, "Threads")}, value{name + ", descriptors", "", float64(len(fds))})
	}
	c.values = append(c.values, value{"MemAvailable of the machine", "MiB", available()})
	return c, nil
}

// own are the datacenter's processes.
func own(t *testbed.Trace) (pids []int) {
	for _, p := range t.Kinds["process"] {
		if pid, err := strconv.Atoi(strings.Fields(p)[0]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// namespaces are those other than the machine's that the datacenter's processes are in or hold open, or that are
// mounted in its directories.
func namespaces(h *testbed.Datacenter, pids []int) []string {
	home := map[string]bool{}
	mine, _ := filepath.Glob("/proc/self/ns/*")
	for _, file := range mine {
		name, _ := os.Readlink(file)
		home[name] = true
	}
	found := map[string]bool{}
	note := func(name string) {
		kind, _, ok := strings.Cut(name, ":[")
		if ok && !home[name] && slices.Contains([]string{"mnt", "net", "pid", "user", "ipc", "uts", "cgroup", "time"}, kind) {
			found[name] = true
		}
	}
	for _, pid := range pids {
		for _, pattern := range []string{"/proc/%d/ns/*", "/proc/%d/fd/*"} {
			files, _ := filepath.Glob(fmt.Sprintf(pattern, pid))
			for _, file := range files {
				name, _ := os.Readlink(file)
				note(name)
			}
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && (strings.Contains(f[4], h.State) ||
			strings.Contains(f[4], "marina-"+h.ID)) {
			note(f[3])
		}
	}
	var out []string
	for name := range found {
		out = append(out, name)
	}
	return out
}

func cgroups(h *testbed.Datacenter) (out []string, err error) {
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, "marina-"+h.ID) {
			out = append(out, path)
		}
		return nil // directories come and go
	})
	return out, err
}

// firewall lists chains, rules and elements of the datacenter's tables.
func firewall(h *testbed.Datacenter) (rules, elements []string, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, nil, err
	}
	for _, chain := range chains {
		if !strings.Contains(chain.Table.Name, h.ID) {
			continue
		}
		rules = append(rules, chain.Table.Name+" "+chain.Name)
		list, err := c.GetRules(chain.Table, chain)
		if err != nil {
			return nil, nil, err
		}
		for n := range list {
			rules = append(rules, fmt.Sprintf("%s %s rule %d", chain.Table.Name, chain.Name, n+1))
		}
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, nil, err
	}
	for _, table := range tables {
		if !strings.Contains(table.Name, h.ID) {
			continue
		}
		sets, err := c.GetSets(table)
		if err != nil {
			return nil, nil, err
		}
		for _, s := range sets {
			list, err := c.GetSetElements(s)
			if err != nil {
				return nil, nil, err
			}
			for _, e := range list {
				elements = append(elements, fmt.Sprintf("%s %s %x", table.Name, s.Name, e.Key))
			}
		}
	}
	return rules, elements, nil
}

func loops(h *testbed.Datacenter) (out []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		if text, _ := os.ReadFile(file); strings.Contains(string(text), h.State) {
			out = append(out, strings.TrimSpace(string(text)))
		}
	}
	return out
}

// tree lists what is in a directory but not what is mounted there, and how many MiB it takes.
func tree(root string) (names []string, mib float64, err error) {
	device := func(d fs.DirEntry) (dev uint64, blocks int64) {
		if info, err := d.Info(); err == nil {
			dev, blocks = deviceOf(info)
		}
		return dev, blocks
	}
	var home uint64
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone meanwhile
			return nil
		case err != nil:
			return err
		}
		dev, blocks := device(d)
		if path == root {
			home = dev
		}
		if dev != home {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		names = append(names, strings.TrimPrefix(path, root))
		mib += float64(blocks) * 512 / (1 << 20)
		return nil
	})
	return names, mib, err
}

// status is a number of /proc/PID/status.
func status(pid int, field string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return number(string(text), field)
}

func available() float64 {
	text, _ := os.ReadFile("/proc/meminfo")
	return number(string(text), "MemAvailable") / 1024
}

func number(text, field string) float64 {
	_, rest, _ := strings.Cut("\n"+text, "\n"+field+":")
	n, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
	return n
}
