package daemon

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/settings"
)

func given(t *testing.T) settings.Datacenter {
	return settings.Datacenter{State: t.TempDir(), Runtime: t.TempDir(), Advertise: "192.0.2.7"}
}

func TestTwoStatesShareNothingOnTheMachine(t *testing.T) {
	a, err := resolve(given(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := resolve(given(t))
	if err != nil {
		t.Fatal(err)
	}
	if a.id == b.id {
		t.Errorf("both are instance %s, want different ones", a.id)
	}
	again, err := resolve(a.Datacenter)
	if err != nil || again.id != a.id || again.pool != a.pool || again.vips != a.vips {
		t.Errorf("the same state gave %v, then %v (%v), want the same names and addresses", a, again, err)
	}
}

func TestADatacenterKeepsTheAddressesOfItsFirstStart(t *testing.T) {
	c := given(t)
	first, err := resolve(c)
	if err != nil {
		t.Fatal(err)
	}
	if first.pool.Overlaps(first.vips) || first.pool.Bits() != 16 || first.vips.Bits() != 20 {
		t.Errorf("chose %v and %v, want a /16 and a /20 apart", first.pool, first.vips)
	}
	c.Pool, c.VIPs = "10.77.0.0/16", "198.18.240.0/20"
	named, err := resolve(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := named.keepRanges(); err != nil {
		t.Fatal(err)
	}
	c.Pool, c.VIPs = "", ""
	later, err := resolve(c)
	if err != nil || later.pool != named.pool || later.vips != named.vips {
		t.Errorf("a later start has %v and %v (%v), want %v and %v", later.pool, later.vips, err, named.pool, named.vips)
	}
	for _, change := range []func(){func() { c.Pool = "10.78.0.0/16" },
		func() { c.Pool, c.VIPs = "", "198.18.224.0/20" }} {
		change()
		if _, err := resolve(c); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "since its first start") {
			t.Errorf("a later start with %+v: %v, want it refused", c, err)
		}
	}
}

func TestSettingsThatCannotWorkAreRefusedInWords(t *testing.T) {
	for what, tc := range map[string]struct {
		change func(*settings.Datacenter)
		says   string
	}{
		"plain HTTP for everybody": {func(c *settings.Datacenter) { c.HTTP = "0.0.0.0:8080" }, "loopback"},
		"no state":                 {func(c *settings.Datacenter) { c.State = "" }, "state directory"},
		"pool is no network":       {func(c *settings.Datacenter) { c.Pool = "10.0.0.1" }, "container pool"},
		"pool is too small":        {func(c *settings.Datacenter) { c.Pool = "10.0.0.0/24" }, "container pool"},
		"VIPs are IPv6":            {func(c *settings.Datacenter) { c.VIPs = "fd00::/64" }, "VIP range"},
		"attribute without value":  {func(c *settings.Datacenter) { c.Attribute = []string{"rack"} }, "name=value"},
		"address is a name":        {func(c *settings.Datacenter) { c.Advertise = "host.example" }, "not an IP address"},
	} {
		t.Run(what, func(t *testing.T) {
			c := given(t)
			tc.change(&c)
			if _, err := resolve(c); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want an invalid argument that says %q", err, tc.says)
			}
		})
	}
}

func TestPIDFileTellsWhoLivesAndOnlyThat(t *testing.T) {
	s, err := resolve(given(t))
	if err != nil {
		t.Fatal(err)
	}
	if pid := durable.Holder(s.agentPID()); pid != 0 {
		t.Errorf("before anybody: %d, want 0", pid)
	}
	release, err := s.writePID(t.Context(), s.agentPID())
	if err != nil {
		t.Fatal(err)
	}
	if pid := durable.Holder(s.agentPID()); pid != os.Getpid() {
		t.Errorf("while held: %d, want %d", pid, os.Getpid())
	}
	if _, err := s.writePID(t.Context(), s.agentPID()); !errdefs.IsUnavailable(err) {
		t.Errorf("second holder: %v, want unavailable", err)
	}
	release()
	if pid := durable.Holder(s.agentPID()); pid != 0 { // its content still names this process, which lives
		t.Errorf("after it ended: %d, want 0", pid)
	}
}

func TestAProcessThatIgnoresTERMIsEndedAfterItsLimit(t *testing.T) {
	cmd := exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := end(ctx, cmd.Process.Pid, 50*time.Millisecond); err != nil {
		t.Errorf("end: %v", err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v, want killed", err)
	}
}

func TestAgentIDIsDrawnOnceForAState(t *testing.T) {
	s, err := resolve(given(t))
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.agentID()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.agentID(); err != nil || a != b || len(a) < 10 {
		t.Errorf("first %q, then %q (%v), want the same", a, b, err)
	}
}

func TestPreflightNamesWhatIsMissingAndWhatToDo(t *testing.T) {
	c := given(t)
	var said []string
	for _, f := range Preflight(t.Context(), c) {
		if f.Severity == "error" {
			said = append(said, f.What+" -> "+f.Do)
		}
	}
	all := strings.Join(said, "\n")
	if !strings.Contains(all, "containerd is missing in "+c.Runtime+" -> make build") {
		t.Errorf("an empty runtime directory was told as:\n%s", all)
	}
	if _, err := os.Stat(filepath.Join(c.State, "run")); err == nil {
		t.Error("the check wrote into the state directory")
	}
}

func TestReachableFillsInTheMachinesAddress(t *testing.T) {
	s, err := resolve(given(t))
	if err != nil {
		t.Fatal(err)
	}
	for listen, want := range map[string]string{":8443": "192.0.2.7:8443", "0.0.0.0:9443": "192.0.2.7:9443",
		"127.0.0.1:1": "127.0.0.1:1"} {
		if got := reachable(listen, s.address); got != want {
			t.Errorf("reachable(%q) = %q, want %q", listen, got, want)
		}
	}
}
