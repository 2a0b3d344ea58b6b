package density

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// ticks is the number of /proc's clock ticks in a second, on every Linux.
const ticks = 100

// process is one as the kernel shows it.
type process struct {
	pid, parent int
	start       string // ticks after boot: with pid, who it is
	argv        []string
	cgroup      string        // the whole of /proc/PID/cgroup
	private     float64       // MiB that nobody shares
	shared      float64       // MiB, its part of what others map too
	cpu         time.Duration // its own and that of the children it waited for
}

// processes reads those that keep says belong, by command line and cgroups. One that ends meanwhile is left out.
func processes(keep func(*process) bool) map[int]*process {
	out := map[int]*process{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		cmd, _ := os.ReadFile(dir + "/cmdline")
		group, _ := os.ReadFile(dir + "/cgroup")
		p := &process{pid: pid, argv: strings.Split(strings.TrimRight(string(cmd), "\x00"), "\x00"), cgroup: string(group)}
		if len(cmd) == 0 || !keep(p) || !p.stat(dir) || !p.memory(dir) {
			continue
		}
		out[pid] = p
	}
	return out
}

func (p *process) stat(dir string) bool {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return false
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // the name before may hold anything
	if len(f) < 20 {
		return false
	}
	p.parent, _ = strconv.Atoi(f[1])
	p.start = f[19]
	for _, n := range f[11:15] { // user, system, and the same of children
		t, _ := strconv.Atoi(n)
		p.cpu += time.Duration(t) * time.Second / ticks
	}
	return true
}

func (p *process) memory(dir string) bool {
	text, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		if err != nil {
			continue
		}
		switch name {
		case "Pss_Anon", "SwapPss":
			p.private += kib / 1024
		case "Pss_File", "Pss_Shmem":
			p.shared += kib / 1024
		}
	}
	return true
}

// parts names the parts of a cluster's memory, in the order of the table.
var parts = []string{"control plane", "marina-node", "kubelet", "node-network", "containerd", "shims", "pause",
	"coredns", "metrics-server", "pod",
	"other", outside}

// outside names the datacenter's own processes for the tasks of a cluster.
const outside = "shims and log writers of its tasks"

// part says what a process of a cluster's tasks is.
func (p *process) part() string {
	program := filepath.Base(p.argv[0])
	switch {
	case strings.HasPrefix(program, "kubernetes-v") && len(p.argv) > 1:
		if p.argv[1] == "control-plane" {
			return "control plane"
		}
		return p.argv[1] // kubelet, node-network
	case program == "containerd-shim-runc-v2":
		return "shims"
	case program == "marina-node", program == "containerd", program == "pause", program == "coredns",
		program == "metrics-server":
		return program
	case strings.Contains(p.cgroup, "/kubepods/"):
		return "pod"
	}
	return "other" // a probe or a runc that happens to run
}

// usage is an amount of memory and processor time.
type usage struct{ private, shared float64 }

func (u usage) plus(v usage) usage { return usage{u.private + v.private, u.shared + v.shared} }

// census is a look at the datacenter's processes.
type census struct {
	parts  []map[string]usage // of each cluster
	own    map[string]usage   // of the datacenter itself, by process
	cpu    map[string]time.Duration
	failed error
}

// count reads all processes of a datacenter and of its clusters.
func count(h *testbed.Datacenter, all []*cluster) *census {
	c := &census{own: map[string]usage{}, cpu: map[string]time.Duration{}}
	run, group := "/run/marina-"+h.ID, "/marina-"+h.ID+"/"
	found := processes(func(p *process) bool {
		line := strings.Join(p.argv, " ")
		return strings.Contains(p.cgroup, group) || strings.Contains(line, run) || strings.Contains(line, h.State)
	})
	for _, k := range all {
		mine := map[string]usage{}
		parents := map[int]bool{} // of the cluster's processes: of the first of each task, that is its shim
		for pid, p := range found {
			if k.owns(p) {
				mine[p.part()] = mine[p.part()].plus(usage{p.private, p.shared})
				parents[p.parent] = true
				delete(found, pid)
			}
		}
		for pid, p := range found {
			if parents[pid] || k.logs(p) {
				mine[outside] = mine[outside].plus(usage{p.private, p.shared})
				c.cpu["outside "+k.name] += p.cpu
				delete(found, pid)
			}
		}
		c.parts = append(c.parts, mine)
	}
	for _, p := range found {
		program := filepath.Base(p.argv[0])
		if len(p.argv) > 1 && program != "containerd" {
			program = p.argv[1] // daemon, agent
		}
		if program == "daemon" || program == "agent" || program == "containerd" {
			c.own[program] = c.own[program].plus(usage{p.private, p.shared})
			c.cpu[program] += p.cpu
		}
	}
	for _, k := range all {
		for _, m := range k.members {
			t, err := m.cpu()
			if err != nil {
				c.failed = err
			}
			c.cpu[m.kind+" "+k.name] = t
		}
	}
	return c
}

// total is a cluster's sum: all of it, and what `cluster show` counts, which is the processes inside of its tasks.
func (c *census) total(n int) (all, inside usage) {
	for part, u := range c.parts[n] {
		all = all.plus(u)
		if part != outside {
			inside = inside.plus(u)
		}
	}
	return all, inside
}

// memAvailable is the machine's, in MiB.
func memAvailable() float64 {
	text, _ := os.ReadFile("/proc/meminfo")
	_, rest, _ := strings.Cut(string(text), "\nMemAvailable:")
	kib, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
	return kib / 1024
}

// machineBusy is the processor time that anybody used since boot.
func machineBusy() time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	var all time.Duration
	for n, f := range strings.Fields(first)[1:9] {
		t, _ := strconv.Atoi(f)
		if n != 3 && n != 4 { // idle, and idle with a disk at work
			all += time.Duration(t) * time.Second / ticks
		}
	}
	return all
}

// cgroupCPU is the processor time of everything that ever was in the cgroup of a process, in whichever hierarchy counts
// it.
func cgroupCPU(cgroup string) (time.Duration, error) {
	for line := range strings.Lines(cgroup) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		for _, controller := range strings.Split(f[1], ",") {
			if controller != "cpuacct" {
				continue
			}
			for _, mount := range []string{f[1], controller} {
				b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", mount, f[2], "cpuacct.usage"))
				if err == nil {
					ns, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
					return time.Duration(ns), err
				}
			}
		}
	}
	for line := range strings.Lines(cgroup) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", path, "cpu.stat"))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), "usage_usec ")
		us, err := strconv.ParseInt(strings.Fields(rest + " x")[0], 10, 64)
		return time.Duration(us) * time.Microsecond, err
	}
	return 0, fmt.Errorf("no cgroup counts processor time: %s", cgroup)
}
