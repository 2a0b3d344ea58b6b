package stories

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/test/testbed"
)

// TestAStoreThatIsFilledComesBack: somebody defines apps until the store is full. What runs goes on, what is asked for
// is refused with what to do, a restart changes nothing about that, and who deletes can go on.
func TestAStoreThatIsFilledComesBack(t *testing.T) {
	h, c := own(t, "--store-quota", "64")
	c.Deploy(t, h.ProbeApp("/stays", 1))
	was := running(t, h, "/stays")
	large := testbed.Definition{"cmd": "sleep 1000", "instances": 0,
		"labels": testbed.Definition{"x": strings.Repeat("x", 240_000)}}
	ids := []string{}
	refused := func(when, id string) bool {
		t.Helper()
		a, err := c.Do("POST", testbed.Marathon+"/apps", large.With(testbed.Definition{"id": id}))
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == 201 {
			ids = append(ids, id)
			return false
		}
		if a.Status != 507 || !strings.Contains(string(a.Body), "of 64 MiB") || !strings.Contains(string(a.Body), "apps") {
			t.Fatalf("%s: got %.500v, want 507 with how full it is and what to delete", when, a)
		}
		return true
	}
	for n := 0; !refused("while it is filled", fmt.Sprintf("/fills/a%d", n)); n++ {
		if n > 300 {
			t.Fatal("a store of 64 MiB took 140 MiB")
		}
	}
	if status := h.Run("status").Out; !strings.Contains(status, "of 64 MiB") || !strings.Contains(status, "deletes go on") {
		t.Errorf("marina status does not tell:\n%s", status)
	}
	if now := running(t, h, "/stays"); !slices.Equal(now, was) {
		t.Errorf("the tasks beside it were %v, are %v", was, now)
	}
	h.Must(t, "down")
	if _, err := h.Up(); err != nil {
		t.Fatalf("a datacenter with a full store does not start: %v", err)
	}
	testbed.Until(t, 30*time.Second, "an answer after the start", func() error {
		_, err := c.Show("/stays")
		return err
	})
	// What was written over is gone by now: some more may fit, and it is refused again.
	for n := 0; !refused("after a start", fmt.Sprintf("/fills/b%d", n)); n++ {
		if n > 100 {
			t.Fatal("a full store takes another 48 MiB after a start")
		}
	}
	c.Settle(t, "/stays", time.Minute)
	was = running(t, h, "/stays")
	for _, id := range ids[:len(ids)/2] {
		c.Ask(t, "DELETE", testbed.Marathon+"/apps"+id, nil, 200, nil)
	}
	testbed.Until(t, time.Minute, "room for what is asked for", func() error {
		if refused("after deleting", "/fills/last") {
			return fmt.Errorf("still full")
		}
		return nil
	})
	if now := running(t, h, "/stays"); !slices.Equal(now, was) {
		t.Errorf("while room was made: the tasks beside it were %v, are %v", was, now)
	}
}
