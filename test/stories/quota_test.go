package stories

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

func TestAQuotaBelowUseStopsNothingAndStartsNothing(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/team/app"
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 2)) // 32 MiB each
	was := running(t, h, id)
	h.Must(t, "quota", "set", "/team", "--mem", "48")
	t.Cleanup(func() { h.Must(t, "quota", "set", "/team", "--none") })
	if text := h.Must(t, "quota", "show", "/team"); !strings.Contains(text, "48 MiB") || !strings.Contains(text, "64 MiB") {
		t.Errorf("quota show: got %q, want the limit of 48 MiB and the use of 64 MiB", text)
	}
	c.Ask(t, "PATCH", testbed.Marathon+"/apps"+id, testbed.Definition{"instances": 3}, 200, nil)
	removeAfter(t, c, "/elsewhere/app")
	c.Deploy(t, h.ProbeApp("/elsewhere/app", 1)) // others are not concerned

	refusal := queue(t, c)[id].Refusal
	if !strings.Contains(refusal, "/team") || !strings.Contains(refusal, "48 MiB") || !strings.Contains(refusal, "64 MiB") {
		t.Errorf("queue: got %q, want it to name /team, its limit of 48 MiB and its use of 64 MiB", refusal)
	}
	if text := h.Must(t, "deployment", "list"); !strings.Contains(text, refusal) {
		t.Errorf("deployment list: got %q, want %q in it", text, refusal)
	}
	if now := running(t, h, id); !slices.Equal(now, was) {
		t.Errorf("under a quota below use: tasks were %v, are %v", was, now)
	}
	h.Must(t, "quota", "set", "/team", "--mem", "96")
	c.Settle(t, id, 30*time.Second)
	if now := running(t, h, id); len(now) != 3 {
		t.Errorf("with room for three: %v run", now)
	}
}

func TestAHigherPriorityOfTheGroupMakesALowerOneWait(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const low, high = "/ranks/low", "/ranks/high"
	h.Must(t, "quota", "set", "/ranks", "--mem", "64", "--guarantee", "mem=32")
	t.Cleanup(func() { h.Must(t, "quota", "set", "/ranks", "--none") })
	removeAfter(t, c, low)
	c.Deploy(t, h.ProbeApp(low, 2)) // 32 MiB each
	was := running(t, h, low)
	removeAfter(t, c, high)
	d := h.ProbeApp(high, 1)
	d["labels"] = map[string]string{"MARINA_PRIORITY": "10"}
	c.Deploy(t, d)
	if now := running(t, h, low); len(now) != 1 || !slices.Contains(was, now[0]) {
		t.Errorf("beside a higher priority %v of %v run, want one of them", now, was)
	}
	testbed.Eventually(t, 10*time.Second, 200*time.Millisecond, "the one that made way to wait", func() error {
		if refusal := queue(t, c)[low].Refusal; !strings.Contains(refusal, "quota of /ranks") {
			return fmt.Errorf("it waits because of %q", refusal)
		}
		return nil
	})
	if text := h.Must(t, "quota"); !strings.Contains(text, "/ranks: 1 waiting for") || !strings.Contains(text, "quota of /ranks") {
		t.Errorf("quota: got %q, want it to say what of /ranks waits and why", text)
	}
	if text := h.Must(t, "app", "show", low); !strings.Contains(text, "1 instances: quota of /ranks") {
		t.Errorf("app show: got %q, want it to say what waits and why", text)
	}
	c.Ask(t, "PATCH", testbed.Marathon+"/apps"+high, testbed.Definition{"instances": 0}, 200, nil)
	c.Settle(t, low, 30*time.Second)
	if now := running(t, h, low); len(now) != 2 {
		t.Errorf("with room for both %v run", now)
	}
}
