package removed

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
)

var zero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRemovedMachinesAreRememberedUpToALimit(t *testing.T) {
	r := New()
	forgotten := 0
	for k := range most + 2 {
		forgotten += len(r.Add(kernel.AgentID(fmt.Sprint("a", k)), "host", zero.Add(time.Duration(k)*time.Second)))
	}
	if forgotten != 2 || r.Has("a0") || r.Has("a1") || !r.Has("a2") || len(r.rows) != most {
		t.Errorf("%d are forgotten and %d remembered, want the oldest two forgotten", forgotten, len(r.rows))
	}
	next := New()
	for _, id := range slices.Backward(r.order) {
		next.Load(id, r.rows[id])
	}
	if next.Sort(); !slices.Equal(next.order, r.order) {
		t.Error("the next leader has them in another order")
	}
}

func TestARemovedMachinesSessionEndsOnceItHasHeard(t *testing.T) {
	r := New()
	r.Add("a", "host", zero)
	if send := r.Dismiss(7, 3, "a"); !send.Sync || send.Seq != 3 || send.Removed == "" {
		t.Errorf("it is told %+v", send)
	}
	for applied, want := range map[uint64]bool{2: false, 3: true} {
		r.Dismiss(7, 3, "a")
		if _, ok := r.Heard(&event.Frame{Session: 7, Up: kernel.Up{Applied: applied}}); ok != want {
			t.Errorf("frame %d is applied: it has heard is %v", applied, ok)
		}
		if _, again := r.Heard(&event.Frame{Session: 7, Up: kernel.Up{Applied: 9}}); again == want {
			t.Errorf("frame %d was applied: it is closed later is %v", applied, again)
		}
	}
	if _, ok := r.Heard(&event.Frame{Session: 8, Up: kernel.Up{Applied: 9}}); ok {
		t.Error("another session: it has heard")
	}
}

func TestALostSessionIsForgotten(t *testing.T) {
	r := New()
	r.Add("a", "host", zero)
	r.Dismiss(7, 3, "a")
	r.Lost(7)
	if why, ok := r.Heard(&event.Frame{Session: 7, Up: kernel.Up{Applied: 3}}); ok {
		t.Errorf("it has heard %q", why)
	}
}
