package services

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestAFullStoreRefusesWhatIsNewAndLetsDeletesThrough: the answer says what to do, and what is asked for again after it
// was done is taken.
func TestAFullStoreRefusesWhatIsNewAndLetsDeletesThrough(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, app := range []string{"/a", "/b"} {
			w.must(201, "POST", "/v2/apps", fmt.Sprintf(`{"id":%q,"cmd":"x","instances":0}`, app))
		}
		rows := w.count()
		w.full = fmt.Errorf("the store is full: delete something: %w", errdefs.ErrResourceExhausted)
		for _, r := range [][3]string{
			{"POST", "/v2/apps", `{"id":"/c","cmd":"x"}`},
			{"PUT", "/v2/apps/a", `{"instances":2}`},
			{"PUT", "/v2/apps", `[{"id":"/c","cmd":"x"}]`},
			{"PATCH", "/v2/apps", `[{"id":"/a","cmd":"y"}]`},
			{"POST", "/v2/apps/a/restart", ""},
		} {
			rec := w.call(r[0], r[1], r[2])
			if rec.Code != 507 || !strings.Contains(rec.Body.String(), "delete something") ||
				strings.Contains(rec.Body.String(), "resource exhausted") {
				t.Errorf("%s %s: got %d %s, want 507 and what to do", r[0], r[1], rec.Code, rec.Body)
			}
		}
		if got := w.count(); got != rows {
			t.Errorf("%d rows after refusals, %d before", got, rows)
		}
		w.must(200, "GET", "/v2/apps/a", "")
		w.must(200, "DELETE", "/v2/apps/a", "")
		w.must(404, "GET", "/v2/apps/a", "")
		w.full = nil
		w.must(201, "POST", "/v2/apps", `{"id":"/c","cmd":"x"}`)
	})
}

// count is how many rows the store has.
func (w *world) count() int {
	snap, err := w.store.Snapshot(w.ctx, "")
	if err != nil {
		w.fail("snapshot: %v", err)
	}
	return len(snap.Items)
}

func TestThereAreNoMoreAppsThanTheLimit(t *testing.T) {
	inWorld(t, func(w *world) {
		w.most = 2
		w.failover()
		w.must(200, "PUT", "/v2/apps", `[{"id":"/a","cmd":"x","instances":0},{"id":"/b","cmd":"x","instances":0}]`)
		for _, r := range [][2]string{{"POST", `{"id":"/c","cmd":"x"}`}, {"PUT", `[{"id":"/c","cmd":"x"}]`}} {
			if rec := w.call(r[0], "/v2/apps", r[1]); rec.Code != 507 || !strings.Contains(rec.Body.String(), "2 apps") {
				t.Errorf("%s: got %d %s, want 507 and the number", r[0], rec.Code, rec.Body)
			}
		}
		w.must(200, "PUT", "/v2/apps/a", `{"cmd":"y"}`)
		w.must(200, "DELETE", "/v2/apps/b", "")
		w.must(201, "POST", "/v2/apps", `{"id":"/c","cmd":"x","instances":0}`)
	})
}
