package stories

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/house"
)

func TestAQuotaBelowUseStopsNothingAndStartsNothing(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/team/app"
	removeAfter(t, c, id)
	c.Deploy(t, h.Truthful(id, 2)) // 32 MiB each
	was := running(t, h, id)
	h.Must(t, "quota", "set", "/team", "--mem", "48")
	t.Cleanup(func() { h.Must(t, "quota", "set", "/team", "--none") })
	if text := h.Must(t, "quota", "show", "/team"); !strings.Contains(text, "48 MiB") || !strings.Contains(text, "64 MiB") {
		t.Errorf("quota show: got %q, want the limit of 48 MiB and the use of 64 MiB", text)
	}
	c.Ask(t, "PATCH", house.Marathon+"/apps"+id, house.Definition{"instances": 3}, 200, nil)
	removeAfter(t, c, "/elsewhere/app")
	c.Deploy(t, h.Truthful("/elsewhere/app", 1)) // others are not concerned

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
