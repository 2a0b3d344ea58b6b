package proof

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	settle = 45 * time.Second // from ready until memory is read
	idle   = 30 * time.Second // over which processor time is counted
)

// TestCost prints what an idle control plane without nodes costs; one run of each, one after another.
func TestCost(t *testing.T) {
	if os.Getenv("MARINA_MEASURE") == "" {
		t.Skip("MARINA_MEASURE is not set")
	}
	eachMinor(t, func(t *testing.T, program, _ string) {
		for _, gogc := range []int{40, 63, 100} {
			p := newPlane(t, program)
			for _, on := range []string{"no data", "its data"} {
				p.up(t, fmt.Sprintf("--gogc=%d", gogc))
				time.Sleep(settle)
				before := cpu(t, p.cmd.Process.Pid)
				time.Sleep(idle)
				used := cpu(t, p.cmd.Process.Pid) - before
				m := memory(t, p.cmd.Process.Pid)
				load, _ := os.ReadFile("/proc/loadavg")
				t.Logf("GOGC=%d on %s: ready %.1f s, private %d MiB, file pages %d MiB, PSS %d MiB, threads %d, idle %.1f %% of a core, data %d MiB, load %.4s",
					gogc, on, p.took.Seconds(), m["Anonymous"]>>10, (m["Rss"]-m["Anonymous"])>>10, m["Pss"]>>10, m["Threads"],
					100*used.Seconds()/idle.Seconds(), diskUse(t, p.dir+"/data")>>20, load)
				p.cmd.Process.Signal(os.Interrupt)
				begun := time.Now()
				p.end(t, time.Minute)
				t.Logf("  stopped after %.1f s", time.Since(begun).Seconds())
			}
		}
	})
}

// TestCostOfASteward prints what a steward with its add-ons adds: two runs, alike but for it.
func TestCostOfASteward(t *testing.T) {
	if os.Getenv("MARINA_MEASURE") == "" {
		t.Skip("MARINA_MEASURE is not set")
	}
	eachMinor(t, func(t *testing.T, program, minor string) {
		p := newStewarded(t, program, true)
		for range 2 {
			for _, with := range []bool{false, true} {
				if with {
					p.up(t)
					p.appliesAddons(t, minor)
				} else {
					p.plane.up(t, "--cluster-cidr=10.244.0.0/16")
				}
				time.Sleep(settle)
				before := cpu(t, p.cmd.Process.Pid)
				time.Sleep(idle)
				used := cpu(t, p.cmd.Process.Pid) - before
				m := memory(t, p.cmd.Process.Pid)
				t.Logf("steward %v: private %d MiB, idle %.1f %% of a core", with, m["Anonymous"]>>10, 100*used.Seconds()/idle.Seconds())
				p.kill()
			}
		}
	})
}

// memory reads smaps_rollup, in KiB, and the number of threads.
func memory(t *testing.T, pid int) map[string]int {
	out := map[string]int{}
	for _, file := range []string{"smaps_rollup", "status"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 {
				out[strings.TrimSuffix(f[0], ":")], _ = strconv.Atoi(f[1])
			}
		}
	}
	return out
}

// cpu is the processor time a process used.
func cpu(t *testing.T, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
