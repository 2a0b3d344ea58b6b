package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/test/testbed"
)

const (
	ups        = 5   // starts of a datacenter
	deploys    = 40  // apps deployed one after the other
	fleet      = 100 // containers started at once
	idleTasks  = 50
	idleFor    = 30 * time.Second
	deaths     = 10
	parallelly = 8 // containers an agent starts at a time
	patience   = 2 * time.Minute
)

func BenchmarkUp(b *testing.B) {
	w := workshop(b)
	var first, again []time.Duration
	for range ups {
		ranges, err := testbed.Ranges()
		if err != nil {
			b.Fatal(err)
		}
		h, err := w.New(ranges...)
		if err != nil {
			b.Fatal(err)
		}
		for _, times := range []*[]time.Duration{&first, &again} {
			begin := time.Now()
			_, err := h.Up()
			*times = append(*times, time.Since(begin))
			if err == nil {
				o := h.Run("down")
				if o.Code != 0 {
					err = fmt.Errorf("%+v", o)
				}
			}
			if err != nil {
				b.Error(err)
			}
		}
		if err := h.Close(); err != nil {
			b.Error(err)
		}
	}
	row(b, "`marina up` to healthy, new state", brief(middle(first)), "3 s",
		fmt.Sprintf("median of %d, the whole command", ups))
	row(b, "`marina up` to healthy, after `marina down`", brief(middle(again)), "3 s",
		fmt.Sprintf("median of %d, the whole command", ups))
}

// sleeper is an app of processes that do nothing, with an address and a VIP and no check.
func sleeper(h *testbed.Datacenter, id string, instances int) testbed.Definition {
	d := h.ProbeApp(id, instances).With(testbed.Definition{"args": []string{"sleep"}, "cpus": 0.01, "mem": 16,
		"resourceLimits": testbed.Definition{"cpus": "unlimited"}})
	delete(d, "healthChecks")
	return d
}

func BenchmarkDeploy(b *testing.B) {
	h, c := open(b)
	var byAPI, byTask []time.Duration
	for i := range deploys {
		id := fmt.Sprintf("/one-%d", i)
		app := h.ProbeApp(id, 1)
		delete(app, "healthChecks")
		begin := time.Now()
		c.Ask(b, "POST", testbed.Marathon+"/apps", app, 201, nil)
		testbed.Until(b, patience, id, func() error { return runningTasks(c, id, 1) })
		byAPI = append(byAPI, time.Since(begin))
		byTask = append(byTask, life(b, h, id, 1).Start.Sub(begin))
		c.Remove(b, id)
	}
	how := fmt.Sprintf("%d apps of 1, image present, bridge network, VIP, host port", deploys)
	row(b, "deploy to TASK_RUNNING in the API", spread(byAPI), "500 ms p50, 1 s p99", how)
	row(b, "deploy to the task's own first line", spread(byTask), "", how)
}

// life waits for the n-th process of an app to have told that it started, and returns what it told.
func life(b *testing.B, h *testbed.Datacenter, app string, n int) (l testbed.Life) {
	b.Helper()
	testbed.Until(b, patience, "a first line of "+app, func() error {
		lives, err := h.Lives(app)
		if err == nil && len(lives) < n {
			err = fmt.Errorf("%d of %d told so", len(lives), n)
		}
		if err == nil {
			l = lives[n-1]
		}
		return err
	})
	return l
}

func runningTasks(c *testbed.Client, id string, n int) error {
	a, err := c.Show(id)
	if err == nil && a.TasksRunning < n {
		err = fmt.Errorf("%d of %d run", a.TasksRunning, n)
	}
	return err
}

func BenchmarkStart100BesideCtr(b *testing.B) {
	h, c := open(b)
	c.Deploy(b, sleeper(h, "/warm", 1)) // image unpacked, everything touched once
	begin := time.Now()
	c.Ask(b, "POST", testbed.Marathon+"/apps", sleeper(h, "/fleet", fleet), 201, nil)
	testbed.Until(b, patience, "the fleet", func() error { return runningTasks(c, "/fleet", fleet) })
	took := time.Since(begin)
	if err := h.Witness(); err != nil {
		b.Error(err)
	}
	c.Remove(b, "/fleet")
	row(b, fmt.Sprintf("start %d containers as one app", fleet), rate(fleet, took), "runc starts 27 a second",
		"from POST to all TASK_RUNNING; bridge network, VIP, user namespace, seccomp")

	ctr := plainCtr(b, h)
	for _, workers := range []int{1, parallelly} {
		took := ctr.start(b, fleet, workers)
		row(b, fmt.Sprintf("`ctr run -d` of the same image, %d at a time", workers), rate(fleet, took), "",
			"same containerd, same run; no network namespace, address, VIP, user namespace or seccomp")
	}
}

func rate(n int, took time.Duration) string {
	return fmt.Sprintf("%.1f a second (%s)", float64(n)/took.Seconds(), brief(took))
}

// ctr is containerd's own client, at the datacenter's containerd, in a namespace of its own.
type ctr struct {
	program, socket, image, fifos string
}

func plainCtr(b *testing.B, h *testbed.Datacenter) *ctr {
	b.Helper()
	program := filepath.Join(b.TempDir(), "ctr")
	build := exec.Command("go", "build", "-o", program, "github.com/containerd/containerd/v2/cmd/ctr")
	build.Dir, build.Env = filepath.Join(h.Runtime, ".."), append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("ctr: %v\n%s", err, out)
	}
	c := &ctr{program: program, socket: "/run/marina-" + h.ID + "/c.sock", image: testbed.ProbeImage, fifos: b.TempDir()}
	c.run(b, "images", "import", h.Workshop.Probe)
	b.Cleanup(func() { c.run(b, "images", "rm", "--sync", c.image) })
	return c
}

func (c *ctr) run(b *testing.B, args ...string) {
	b.Helper()
	cmd := exec.Command(c.program, append([]string{"-a", c.socket, "-n", "bench"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Errorf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// start starts containers and takes them away again; it returns how long starting took.
func (c *ctr) start(b *testing.B, n, workers int) time.Duration {
	each := func(f func(id string)) {
		var wg sync.WaitGroup
		slots := make(chan struct{}, workers)
		for i := range n {
			slots <- struct{}{}
			wg.Go(func() {
				f(fmt.Sprintf("plain-%d", i))
				<-slots
			})
		}
		wg.Wait()
	}
	begin := time.Now()
	each(func(id string) {
		c.run(b, "run", "-d", "--fifo-dir", c.fifos, "--runc-root", c.fifos, c.image, id, "/probe", "sleep")
	})
	took := time.Since(begin)
	each(func(id string) {
		c.run(b, "tasks", "kill", "-s", "SIGKILL", id)
		c.run(b, "tasks", "rm", "-f", id)
		c.run(b, "containers", "rm", id)
	})
	return took
}

func BenchmarkIdle(b *testing.B) {
	h, c := open(b)
	c.Deploy(b, sleeper(h, "/idle", idleTasks))
	names := []string{"daemon", "agent", "containerd"}
	pids := map[string]int{}
	for _, name := range names {
		pid, err := h.PID(name)
		if err != nil {
			b.Fatal(err)
		}
		pids[name] = pid
	}
	before, begin := map[string]time.Duration{}, time.Now()
	for name, pid := range pids {
		before[name] = cpuTime(b, pid)
	}
	testbed.Always(b, idleFor, "an idle datacenter", func() error { return nil })
	elapsed := time.Since(begin)
	budget := map[string]string{"agent": "60 MiB, 1 % of a core"}
	for _, name := range names {
		share := float64(cpuTime(b, pids[name])-before[name]) / float64(elapsed) * 100
		row(b, fmt.Sprintf("%s with %d idle tasks", name, idleTasks), fmt.Sprintf("%.1f MiB, %.2f %% of a core",
			pss(b, pids[name]), share),
			budget[name], fmt.Sprintf("PSS and CPU time over %v", idleFor))
	}
	shims, n := 0.0, 0
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmd, _ := os.ReadFile(dir + "/cmdline")
		if strings.Contains(string(cmd), "containerd-shim-runc-v2") && strings.Contains(string(cmd), "marina-"+h.ID) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			shims, n = shims+pss(b, pid), n+1
		}
	}
	if n > 0 {
		row(b, "one shim", fmt.Sprintf("%.1f MiB", shims/float64(n)), "", fmt.Sprintf("PSS, mean of %d", n))
	}
}

// pss is a process's proportional share of memory in MiB.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// ticks is the number of /proc's clock ticks in a second, on every Linux.
const ticks = 100

func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / ticks
}

func BenchmarkReplace(b *testing.B) {
	h, c := open(b)
	for _, backoff := range []int{1, 0} {
		var times []time.Duration
		for i := range deaths {
			id := fmt.Sprintf("/mortal-%d-%d", backoff, i)
			app := h.ProbeApp(id, 1).With(testbed.Definition{"backoffSeconds": backoff})
			delete(app, "healthChecks")
			c.Deploy(b, app)
			life(b, h, id, 1)
			victims, err := h.Processes(testbed.Prefix(id))
			if err != nil || len(victims) != 1 {
				b.Fatalf("%s: %v, %v", id, victims, err)
			}
			begin := time.Now()
			if err := unix.Kill(victims[0].PID, unix.SIGKILL); err != nil {
				b.Fatal(err)
			}
			times = append(times, life(b, h, id, 2).Start.Sub(begin))
			c.Remove(b, id)
		}
		row(b, fmt.Sprintf("container killed to its replacement's first line, backoff %d s", backoff), spread(times), "",
			fmt.Sprintf("%d deaths by kill -9, each of another app", deaths))
	}
}
