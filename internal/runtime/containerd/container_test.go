package containerd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/runtime"
)

type report struct {
	UID, GID                 int
	Dir, Hostname            string
	Args, Env                []string
	UIDMap, Cgroup           string
	Status, Refused, Allowed map[string]string
	Files                    uint64
	Processes                int
}

// look runs the probe's report in a container.
func look(t *testing.T, p *place, exits <-chan runtime.Exit, c runtime.Container) report {
	t.Helper()
	p.run(c)
	e := p.exit(exits, c.ID)
	out, errs := p.output(c)
	if e.Code != 0 {
		t.Fatalf("exit: got %+v, want code 0; stderr: %s", e, errs)
	}
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestContainerSeesOnlyWhatItMay(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())

	t.Run("image", func(t *testing.T) {
		c := p.container()
		c.Env = []string{"MESOS_SANDBOX=" + runtime.SandboxTarget, "FROM=task"}
		r := look(t, p, exits, c)
		for name, is := range map[string]struct{ got, want any }{
			"user":         {fmt.Sprint(r.UID, r.GID), "0 0"},
			"uid map":      {r.UIDMap, fmt.Sprint("0 ", p.cfg.IDBase, " 65536")},
			"directory":    {r.Dir, runtime.SandboxTarget},
			"hostname":     {r.Hostname, "probe"},
			"arguments":    {fmt.Sprint(r.Args), "[/probe report]"},
			"seccomp":      {r.Status["Seccomp"], "2"},
			"no new privs": {r.Status["NoNewPrivs"], "1"},
			"capabilities": {r.Status["CapEff"] + r.Status["CapBnd"] + r.Status["CapAmb"], strings.Repeat("00000000a00405fb", 2) + "0000000000000000"},
			"processes":    {r.Processes, 1},
		} {
			if is.got != is.want {
				t.Errorf("%s: got %v, want %v", name, is.got, is.want)
			}
		}
		for what, err := range r.Refused {
			if err == "" {
				t.Errorf("%s: allowed, want it refused", what)
			}
		}
		for what, err := range r.Allowed {
			if err != "" {
				t.Errorf("%s: %s, want it allowed", what, err)
			}
		}
		env := slices.Sorted(slices.Values(r.Env))
		want := []string{"FROM=task", "HOME=/", "MESOS_SANDBOX=" + runtime.SandboxTarget, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		if d := cmp.Diff(want, env); d != "" {
			t.Errorf("environment (-want +got):\n%s", d)
		}
		for _, line := range strings.Split(r.Cgroup, "\n") {
			if !strings.HasSuffix(line, ":/") {
				t.Errorf("cgroup namespace: got %s, want only /", line)
			}
		}
	})

	t.Run("image as a user", func(t *testing.T) {
		c := p.container()
		c.User = "alice"
		r := look(t, p, exits, c)
		if r.UID != 1000 || r.GID != 1000 || r.Status["CapEff"] != "0000000000000000" {
			t.Errorf("got user %d:%d with capabilities %s, want 1000:1000 with none", r.UID, r.GID, r.Status["CapEff"])
		}
		if err := r.Allowed["write sandbox"]; err != "" {
			t.Errorf("sandbox: %s", err)
		}
		st, err := os.Stat(filepath.Join(filepath.Dir(c.Stdout), "written"))
		if err != nil {
			t.Fatal(err)
		}
		if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 1000 {
			t.Errorf("owner on disk of a file of user 1000: got %d, want 1000: ids are mapped by the mount", uid)
		}
	})

	t.Run("host network", func(t *testing.T) {
		c := p.container()
		c.NetNS = ""
		r := look(t, p, exits, c)
		if r.UIDMap != "0 0 4294967295" || r.Status["Seccomp"] != "2" || r.Status["CapBnd"] != "00000000a00405fb" {
			t.Errorf("got uid map %q, seccomp %s, capabilities %s", r.UIDMap, r.Status["Seccomp"], r.Status["CapBnd"])
		}
		for what, err := range r.Refused {
			if err == "" {
				t.Errorf("%s: allowed, want it refused", what)
			}
		}
	})
}

func TestMachineTaskRunsTheMachinesPrograms(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())
	for _, net := range []string{"own network", "host network"} {
		t.Run(net, func(t *testing.T) {
			c := p.container()
			if net == "host network" {
				c.NetNS = ""
			}
			c.Image, c.Argv = "", nil
			c.Shell = `id -u; id -g; pwd; echo made > file && cat file; echo x > /usr/x; echo x > /etc/x; echo x > /x; ls /root /var/lib 2>&1; echo x > /tmp/x && echo tmp; getent passwd nobody; ls /etc/shadow`
			p.run(c)
			p.exit(exits, c.ID)
			out, errs := p.output(c)
			want := []string{"65534", "65534", runtime.SandboxTarget, "made"}
			if got := strings.Split(out, "\n"); len(got) < 4 || !slices.Equal(got[:4], want) {
				t.Errorf("got %q, want it to start with %q; stderr: %s", out, want, errs)
			}
			for _, has := range []string{"tmp\n", "nobody:"} {
				if !strings.Contains(out, has) {
					t.Errorf("output lacks %q: %s", has, out)
				}
			}
			for _, has := range []string{"/usr/x: Read-only", "/etc/x: Read-only", "/x: Read-only", "/etc/shadow"} {
				if !strings.Contains(errs, has) {
					t.Errorf("stderr lacks %q: %s", has, errs)
				}
			}
		})
	}
	c := p.container()
	c.Image, c.Argv, c.User = "", []string{"/bin/true"}, "nosuchuser"
	if err := p.Create(t.Context(), c); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown user: got %v, want an invalid argument", err)
	}
}

func TestAContainersOwnLayerIsTold(t *testing.T) {
	p := newPlace(t)
	c := p.container("fill", "8")
	p.run(c)
	eventually(t, "its layer counts", func() bool {
		bytes, err := p.Layer(t.Context(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return bytes >= 8<<20 && bytes < 9<<20
	})
}

func TestLimitsHold(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())

	t.Run("memory", func(t *testing.T) {
		c := p.container("eat")
		p.run(c)
		e := p.exit(exits, c.ID)
		if !e.OOM || e.Code != 137 {
			t.Errorf("got %+v, want code 137 by OOM", e)
		}
		found, err := p.Containers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(found, func(f runtime.Found) bool { return f.ID == c.ID })
		if i < 0 || found[i].Running || found[i].Exit == nil || !found[i].Exit.OOM || found[i].Labels["task"] != "app" {
			t.Errorf("listed as %+v, want it ended by OOM", found)
		}
	})

	t.Run("processes", func(t *testing.T) {
		c := p.container("fork")
		c.PIDLimit = 20
		p.run(c)
		p.exit(exits, c.ID)
		var n int
		out, _ := p.output(c)
		if _, err := fmt.Sscanf(out, "stopped %d", &n); err != nil || n >= 20 {
			t.Errorf("got %q, want it stopped before 20", out)
		}
	})

	t.Run("cpu", func(t *testing.T) {
		c := p.container("spin")
		c.CPULimit = 100
		p.run(c)
		var s runtime.Stats
		eventually(t, "throttled", func() bool {
			var err error
			if s, err = p.Stats(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
			return s.Throttle > 0 && s.CPU > 0
		})
		if s.PIDs == 0 || s.Mem == 0 || s.Mem > c.MemLimit {
			t.Errorf("stats: got %+v", s)
		}
		if err := p.Remove(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
	})

	t.Run("cpu again", func(t *testing.T) { // as after an agent that died before it could set the limit
		c := p.container("spin")
		c.CPULimit = 100
		p.run(c)
		file, none, want := p.cgroupFile(c, "cpu.cfs_quota_us"), "-1", "10000"
		if unified {
			file, none, want = p.cgroupFile(c, "cpu.max"), "max 100000", "10000 100000"
		}
		if got := contents(t, file); strings.TrimSpace(got) != want {
			t.Errorf("started with limit %q, want %q", got, want)
		}
		if err := os.WriteFile(file, []byte(none), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Containers(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, file); strings.TrimSpace(got) != want {
			t.Errorf("found again with limit %q, want %q", got, want)
		}
		if err := p.Remove(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
	})

	t.Run("exit code", func(t *testing.T) {
		c := p.container("exit", "5")
		p.run(c)
		if e := p.exit(exits, c.ID); e.Code != 5 || e.OOM || time.Since(e.Time) > patience {
			t.Errorf("got %+v, want code 5 now", e)
		}
	})
}

func TestSignalEscalatesFromTermToKill(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())
	ready := func(c runtime.Container) {
		p.run(c)
		eventually(t, "ready", func() bool { return contents(t, c.Stdout) == "ready\n" })
	}

	polite := p.container("polite")
	ready(polite)
	if err := p.Signal(t.Context(), polite.ID, int(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if e := p.exit(exits, polite.ID); e.Code != 7 {
		t.Errorf("polite: got %+v, want code 7", e)
	}
	if err := p.Signal(t.Context(), polite.ID, int(unix.SIGTERM)); err != nil {
		t.Errorf("signal to an ended container: %v", err)
	}

	stubborn := p.container("stubborn")
	ready(stubborn)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.Signal(t.Context(), stubborn.ID, int(sig)); err != nil {
			t.Fatal(err)
		}
	}
	if e := p.exit(exits, stubborn.ID); e.Code != 137 {
		t.Errorf("stubborn: got %+v, want code 137", e)
	}

	t.Run("without a handler", func(t *testing.T) {
		c := p.container()
		c.Image, c.Argv, c.Shell = "", nil, "echo ready; exec sleep 1000"
		ready(c)
		eventually(t, "sleep executes", func() bool { return p.comm(c.ID) == "sleep" })
		if err := p.Signal(t.Context(), c.ID, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		if e := p.exit(exits, c.ID); e.Code != 137 {
			t.Errorf("got %+v, want code 137", e)
		}
	})
	t.Run("child of a shell", func(t *testing.T) {
		c := p.container()
		c.Image, c.Argv, c.Shell = "", nil, `sh -c 'trap "exit 9" TERM; echo ready; sleep 1000 & wait'; exit $?`
		ready(c)
		if err := p.Signal(t.Context(), c.ID, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		if e := p.exit(exits, c.ID); e.Code != 9 {
			t.Errorf("got %+v, want code 9: the child handles TERM", e)
		}
	})
}

var unified = cgroups.Mode() == cgroups.Unified

// cgroupFile finds a file of a container's cgroup, in whichever hierarchy has it.
func (p *place) cgroupFile(c runtime.Container, name string) string {
	p.t.Helper()
	for _, dir := range p.cgroups.Dirs(filepath.Join(p.cfg.cgroup(), c.Cgroup)) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	p.t.Fatalf("no hierarchy has %s of %s", name, c.Cgroup)
	return ""
}

// comm is the name of a container's first process.
func (p *place) comm(id string) string {
	found, err := p.Containers(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range found {
		if f.ID == id && f.Running {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(f.Process.PID) + "/comm")
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

func TestExec(t *testing.T) {
	p := newPlace(t)
	c := p.container("stubborn")
	p.run(c)

	t.Run("streams and exit code", func(t *testing.T) {
		var out, errs bytes.Buffer
		code, err := p.Exec(t.Context(), c.ID, runtime.Exec{Argv: []string{"/probe", "echo"}, Stdin: strings.NewReader("one\ntwo\n"), Stdout: &out, Stderr: &errs})
		if err != nil || code != 3 {
			t.Errorf("got code %d, error %v, want 3", code, err)
		}
		if got := out.String() + errs.String(); got != "out: one\nout: two\nerr: one\nerr: two\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		sizes := make(chan runtime.Size)
		go func() {
			s := bufio.NewScanner(r)
			for s.Scan() {
				if !strings.HasPrefix(s.Text(), "132 43") {
					sizes <- runtime.Size{Columns: 132, Rows: 43}
				}
			}
			close(sizes)
		}()
		code, err := p.Exec(t.Context(), c.ID, runtime.Exec{Argv: []string{"/probe", "size"}, TTY: true, Stdout: w, Resize: sizes})
		w.Close()
		<-sizes
		if err != nil || code != 0 {
			t.Errorf("got code %d, error %v", code, err)
		}
	})
	t.Run("terminal of a size", func(t *testing.T) {
		var out lockedBuffer
		sizes := make(chan runtime.Size, 1)
		sizes <- runtime.Size{Columns: 132, Rows: 43}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		code, err := p.Exec(ctx, c.ID, runtime.Exec{Argv: []string{"/probe", "size"}, TTY: true, Stdout: &out, Resize: sizes})
		if text := out.String(); err != nil || code != 0 || !strings.HasPrefix(text, "132 43") {
			t.Errorf("got %q, code %d, error %v, want 132 43 from the first look on", text, code, err)
		}
	})
	t.Run("no such program", func(t *testing.T) {
		if code, err := p.Exec(t.Context(), c.ID, runtime.Exec{Argv: []string{"/no"}}); err == nil {
			t.Errorf("got code %d, want an error", code)
		}
	})
	t.Run("caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out lockedBuffer
		time.AfterFunc(patience, cancel)
		go func() {
			for ctx.Err() == nil {
				if strings.Contains(out.String(), "ready") {
					cancel()
				}
			}
		}()
		if _, err := p.Exec(ctx, c.ID, runtime.Exec{Argv: []string{"/probe", "stubborn"}, Stdout: &out}); err != context.Canceled {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		eventually(t, "the exec is dead", func() bool {
			s, err := p.Stats(t.Context(), c.ID)
			if err != nil {
				t.Fatal(err)
			}
			found, _ := p.Containers(t.Context())
			return s.PIDs == threads(t, found[0].Process.PID)
		})
	})
	if fifos, _ := os.ReadDir(p.cfg.fifos()); len(fifos) > 0 {
		t.Errorf("pipes of execs stay: %v", fifos)
	}
}

func threads(t *testing.T, pid int) int64 {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(list))
}

func TestOutputIsAppended(t *testing.T) {
	p := newPlace(t)
	exits := p.Exits(t.Context())
	c := p.container()
	c.Image, c.Argv, c.Shell = "", nil, "echo one; echo two >&2"
	if err := os.WriteFile(c.Stdout, []byte("zero\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.run(c)
	p.exit(exits, c.ID)
	if out, errs := p.output(c); out != "zero\none\n" || errs != "two\n" {
		t.Errorf("got %q and %q", out, errs)
	}
	tty := p.container()
	tty.Image, tty.Argv, tty.Shell, tty.TTY = "", nil, "test -t 1 && echo terminal >&2", true
	p.run(tty)
	p.exit(exits, tty.ID)
	if out, _ := p.output(tty); out != "terminal\r\n" {
		t.Errorf("terminal: got %q", out)
	}
}

func TestFullDiskStopsNoTask(t *testing.T) {
	p := newPlace(t)
	c := p.container()
	dir := filepath.Dir(c.Stdout)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k,mode=1777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	c.Stderr = filepath.Join(t.TempDir(), "stderr")
	c.Image, c.Argv, c.Shell = "", nil, "dd if=/dev/zero bs=1k count=512; while :; do echo tick; sleep 0.02; done"
	p.run(c)
	eventually(t, "dd is done", func() bool { return strings.Contains(contents(t, c.Stderr), "512+0 records out") })
	if err := os.Truncate(c.Stdout, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is told and output goes on", func() bool {
		out := contents(t, c.Stdout)
		return strings.Contains(out, "bytes of output could not be written") && strings.Contains(out, "tick\ntick\n")
	})
}

func TestRefusals(t *testing.T) {
	p := newPlace(t)
	missing := p.container()
	missing.Image = "example.com/missing:1"
	leaves := p.container()
	leaves.Cgroup = "../../else"
	bad := p.container()
	bad.Image = "Not A Reference"
	twice := p.container("stubborn")
	p.run(twice)
	wrong := p.container("report")
	wrong.Argv = nil
	wrong.Shell = "true" // the image has no shell
	for _, tc := range []struct {
		name string
		c    runtime.Container
		is   func(error) bool
	}{
		{"image is not present", missing, errdefs.IsNotFound},
		{"cgroup leaves the datacenter's", leaves, errdefs.IsInvalidArgument},
		{"image is no reference", bad, errdefs.IsInvalidArgument},
		{"exists", twice, errdefs.IsAlreadyExists},
	} {
		if err := p.Create(t.Context(), tc.c); !tc.is(err) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
	if err := p.Create(t.Context(), wrong); err == nil {
		_, err = p.Start(t.Context(), wrong.ID)
		if err == nil || !strings.Contains(err.Error(), "/bin/sh") {
			t.Errorf("image without a shell: got %v, want an error that names /bin/sh", err)
		}
	}
	if err := p.Remove(t.Context(), "never made"); err != nil {
		t.Errorf("Remove of what does not exist: %v", err)
	}
	if err := p.Signal(t.Context(), "never made", 15); !errdefs.IsNotFound(err) {
		t.Errorf("Signal to what does not exist: got %v, want not found", err)
	}
	found, err := p.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.ID != twice.ID && f.ID != wrong.ID {
			t.Errorf("a refused container exists: %+v", f)
		}
	}
	for _, f := range found {
		if err := p.Remove(t.Context(), f.ID); err != nil {
			t.Error(err)
		}
	}
	if dirs, err := filepath.Glob("/sys/fs/cgroup/*" + p.cfg.cgroup() + "/*/"); err != nil || len(dirs) > 0 {
		t.Errorf("cgroups stay: %v %v", dirs, err)
	}
}
