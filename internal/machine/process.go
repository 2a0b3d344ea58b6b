package machine

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every architecture Go runs on.
const tick = time.Second / 100

// Process describes a process, by /proc.
type Process struct {
	PID     int
	Parent  int
	Session int
	Started time.Time     // to a hundredth of a second
	CPU     time.Duration // used by it and its threads, its children not counted
	Zombie  bool          // it has ended and nobody has asked how
}

// ReadProcess reads one. One that is not there is errdefs.ErrNotFound.
func ReadProcess(pid int) (Process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w: %w", pid, errdefs.ErrNotFound, err)
	}
	boot, err := BootTime()
	if err != nil {
		return Process{}, err
	}
	p, err := parseStat(b, boot)
	if err != nil {
		return Process{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return p, nil
}

// parseStat reads a line of /proc/PID/stat; proc_pid_stat(5) numbers its fields from one.
func parseStat(b []byte, boot time.Time) (Process, error) {
	first, _, _ := bytes.Cut(b, []byte(" "))
	pid, err := strconv.Atoi(string(first))
	if err != nil {
		return Process{}, fmt.Errorf("no process number: %w", errdefs.ErrInternal)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // the name before may hold anything
	if len(fields) < 20 {
		return Process{}, fmt.Errorf("it is short: %w", errdefs.ErrInternal)
	}
	field := func(n int) int64 { v, _ := strconv.ParseInt(fields[n-3], 10, 64); return v }
	return Process{
		PID: pid, Parent: int(field(4)), Session: int(field(6)),
		Started: boot.Add(time.Duration(field(22)) * tick),
		CPU:     time.Duration(field(14)+field(15)) * tick,
		Zombie:  fields[0] == "Z" || fields[0] == "X",
	}, nil
}

// BootTime returns the time of the machine's start, as the kernel counts it, to the second. It is read once: the kernel
// moves it when the clock is set, and a process must not seem to have started at two times.
var BootTime = sync.OnceValues(func() (time.Time, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			sec, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Unix(sec, 0).UTC(), err
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat has no btime: %w", errdefs.ErrNotFound)
})

// StartTime returns the time of a process' start, to a hundredth of a second.
func StartTime(pid int) (time.Time, error) {
	p, err := ReadProcess(pid)
	return p.Started, err
}

// PIDs lists the processes there are.
func PIDs() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	return out, nil
}

// CommandLine is a process's words, each ended by a zero byte.
func CommandLine(pid int) ([]byte, error) { return os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) }

// Descendants is a process and all below it. What was orphaned inside of a container is its first process's.
func Descendants(root int) []int {
	children := map[int][]int{}
	all, _ := PIDs()
	for _, pid := range all {
		if p, err := ReadProcess(pid); err == nil { // else it ended meanwhile
			children[p.Parent] = append(children[p.Parent], pid)
		}
	}
	out := []int{root}
	for n := 0; n < len(out); n++ {
		out = append(out, children[out[n]]...)
	}
	return out
}

// ProcessMemory returns a process' memory in bytes: all of it, shared parts counted fully, and in proportion to
// those who share them, apart for anonymous memory and what files back.
type ProcessMemory struct {
	Resident, Anonymous, Files int64
}

// MemoryOf asks the kernel for the exact figures (smaps_rollup); those in stat lag behind. It is zero for what is gone.
func MemoryOf(pid int) ProcessMemory {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return ProcessMemory{}
	}
	sum := func(names ...string) (out int64) {
		for _, n := range names {
			kb, _ := kilobytes(string(b), n)
			out += kb << 10
		}
		return out
	}
	return ProcessMemory{Resident: sum("Rss"), Anonymous: sum("Pss_Anon", "SwapPss"), Files: sum("Pss_File", "Pss_Shmem")}
}
