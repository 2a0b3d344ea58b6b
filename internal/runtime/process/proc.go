package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ticks are the units of /proc/<pid>/stat, 100 a second on every Linux that Go runs on.
const ticks = time.Second / 100

// proc is what the kernel says of a process.
type proc struct {
	session int
	started time.Time
	cpu     time.Duration
}

// stat reads a process; one that has ended, reaped or not, is an error.
func stat(pid int) (proc, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return proc{}, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:]) // from the third field on
	if len(f) < 22 || f[0] == "Z" || f[0] == "X" {
		return proc{}, syscall.ESRCH
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(f[i-3], 10, 64); return v }
	return proc{
		session: int(n(6)),
		started: boot().Add(time.Duration(n(22)) * ticks),
		cpu:     time.Duration(n(14)+n(15)) * ticks,
	}, nil
}

// resident is a process's memory. It asks for the exact figure: the one in stat lags behind by pages of each core.
func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "\nRss:")
	line, _, _ := strings.Cut(rest, " kB\n")
	kb, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return kb << 10
}

// boot is when the machine started, to the second.
var boot = sync.OnceValue(func() time.Time {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		panic(err) // this cannot be on Linux
	}
	_, rest, _ := strings.Cut(string(b), "\nbtime ")
	line, _, _ := strings.Cut(rest, "\n")
	sec, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return time.Unix(sec, 0).UTC()
})

// session lists the processes of a session that have not ended.
func session(leader int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, err := stat(pid); err == nil && p.session == leader {
			out = append(out, pid)
		}
	}
	return out, nil
}
