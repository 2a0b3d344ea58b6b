package stories

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/test/house"
)

func TestTasksOutliveEverythingThatHappensToTheDatacentersProcesses(t *testing.T) {
	h, c := own(t)
	const id = "/stays"
	c.Deploy(t, h.Truthful(id, 2))
	if err := h.Witness(); err != nil {
		t.Fatal(err)
	}
	was := running(t, h, id)
	vip := c.VIP(t, id)
	same := func(when string) {
		t.Helper()
		if now := running(t, h, id); !slices.Equal(now, was) {
			t.Errorf("%s: tasks were %v, are %v", when, was, now)
		}
		adopted(t, h, c, id)
		c.Settle(t, id, 30*time.Second)
	}
	up := func(program string) string {
		t.Helper()
		out, err := h.UpAs(program)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	caller := house.NewCaller(vip, 10*time.Millisecond, nil)

	daemon, _ := h.PID("daemon")
	if out := up(h.Marina); !strings.Contains(out, "runs already") {
		t.Errorf("up once more: got %q, want it to say that all runs", out)
	}
	if now, _ := h.PID("daemon"); now != daemon {
		t.Errorf("up once more replaced the daemon: %d, then %d", daemon, now)
	}
	same("after up once more")

	newer, err := h.Build("marina-2", "house-2")
	if err != nil {
		t.Fatal(err)
	}
	up(newer)
	house.Until(t, 30*time.Second, "daemon and agent of the new build", func() error {
		for _, name := range []string{"daemon", "agent"} {
			pid, err := h.PID(name)
			if err != nil {
				return err
			}
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != newer {
				return fmt.Errorf("the %s runs %s, %v", name, exe, err)
			}
		}
		return c.Settled(id)
	})
	same("after up with a new build")
	c.Deploy(t, h.Truthful("/newer", 1)) // it works
	c.Remove(t, "/newer")
	report(t, "while daemon and agent were replaced", caller.Stop())

	// A build that takes the place of the one that runs, as after git pull and make.
	inPlace := filepath.Join(t.TempDir(), "marina")
	copyFile(t, h.Marina, inPlace)
	up(inPlace)
	copyFile(t, newer, inPlace+".new")
	if err := os.Rename(inPlace+".new", inPlace); err != nil {
		t.Fatal(err)
	}
	agent, _ := h.PID("agent")
	kill(t, h, "agent") // what the daemon of the old file starts now is the new one
	house.Until(t, 20*time.Second, "another agent", func() error {
		if pid, err := h.PID("agent"); err != nil || pid == agent {
			return fmt.Errorf("agent %d, %v", pid, err)
		}
		return c.Settled(id)
	})
	up(inPlace)
	same("after the program's file was replaced")

	kill(t, h, "daemon")
	orphaned := running(t, h, id)
	if who, err := house.Who(vip); err != nil || !strings.HasPrefix(who, house.Prefix(id)) {
		t.Errorf("without a daemon the VIP answers %q, %v", who, err)
	}
	if !slices.Equal(orphaned, was) {
		t.Errorf("without a daemon: tasks were %v, are %v", was, orphaned)
	}
	h.Must(t, "down") // of a daemon that was killed
	if now := running(t, h, id); len(now) != 0 {
		t.Errorf("after down: %v run", now)
	}
	trace, err := h.Trace(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"process", "namespace", "link", "table", "route"} {
		if len(trace.Kinds[kind]) > 0 {
			t.Errorf("after down there still is %s %v", kind, trace.Kinds[kind])
		}
	}
	h.Must(t, "down") // again

	up(h.Marina)
	c.Settle(t, id, 60*time.Second)
	if now := running(t, h, id); len(now) != 2 || slices.ContainsFunc(now, func(p house.Process) bool { return slices.Contains(was, p) }) {
		t.Errorf("after down and up: %v run, want 2 new ones", now)
	}
	if got := c.VIP(t, id); got != vip {
		t.Errorf("after down and up the VIP is %s, was %s", got, vip)
	}
	if who, err := house.Who(vip); err != nil || !strings.HasPrefix(who, house.Prefix(id)) {
		t.Errorf("after down and up the VIP answers %q, %v", who, err)
	}
	adopted(t, h, c, id)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestTwoDatacentersStandSideBySide(t *testing.T) {
	w := workshop(t)
	var houses []*house.House
	var clients []*house.Client
	for range 2 {
		h, err := w.New() // with the address ranges that they choose themselves
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		if _, err := h.Up(); err != nil {
			t.Fatal(err)
		}
		if err := h.Load(w.Truth); err != nil {
			t.Fatal(err)
		}
		houses, clients = append(houses, h), append(clients, attend(t, h))
	}
	const id = "/twin"
	for i, c := range clients {
		c.Deploy(t, houses[i].Truthful(id, 1))
		if err := houses[i].Witness(); err != nil {
			t.Fatal(err)
		}
	}
	var callers []*house.Caller
	for i, c := range clients {
		vip := c.VIP(t, id)
		who, err := house.Who(vip)
		if mine := running(t, houses[i], id); err != nil || len(mine) != 1 || who != mine[0].Task {
			t.Errorf("datacenter %d: %s answers %q, %v, want %v", i, vip, who, err, mine)
		}
		callers = append(callers, house.NewCaller(vip, 10*time.Millisecond, nil))
	}
	stays := running(t, houses[1], id)
	callers[0].Stop()
	if a, err := clients[1].Do("GET", "/v2/apps", nil); err != nil || a.Status != 200 {
		t.Fatalf("the second datacenter: %v, %v", a, err)
	}
	other := *clients[1]
	other.Auth = clients[0].Auth
	if a, err := other.Do("GET", "/v2/apps", nil); err != nil || a.Status != 401 {
		t.Errorf("a token of one datacenter at the other: got %v, %v, want 401", a, err)
	}
	if err := houses[0].Close(); err != nil {
		t.Errorf("taking the first away: %v", err)
	}
	if err := unix.Access(houses[0].State, unix.F_OK); err == nil {
		t.Errorf("%s is still there", houses[0].State)
	}
	house.Always(t, 2*time.Second, "the second datacenter after the first one's end", func() error { return clients[1].Settled(id) })
	if now := running(t, houses[1], id); !slices.Equal(now, stays) {
		t.Errorf("the second's tasks: were %v, are %v", stays, now)
	}
	report(t, "while the other datacenter was taken away", callers[1].Stop())
}
