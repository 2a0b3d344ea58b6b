package sandbox

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSandboxesAreCollectedOldestFirst(t *testing.T) {
	now := time.Unix(1e6, 0)
	ago := func(name string, d time.Duration) box { return box{name: name, ended: now.Add(-d), bytes: 100} }
	boxes := []box{ago("young", time.Minute), ago("old", 3*time.Hour), ago("mid", time.Hour)}
	for _, c := range []struct {
		name   string
		limits Limits
		free   int64
		want   []string
	}{
		{"room", Limits{Age: 4 * time.Hour, Count: 3}, 1000, nil},
		{"age", Limits{Age: 2 * time.Hour, Count: 3}, 1000, []string{"old"}},
		{"count", Limits{Age: 4 * time.Hour, Count: 1}, 1000, []string{"old", "mid"}},
		{"free", Limits{Age: 4 * time.Hour, Count: 3, Free: 1150}, 1000, []string{"old", "mid"}},
	} {
		if d := cmp.Diff(decide(c.limits, boxes, now, c.free), c.want); d != "" {
			t.Errorf("%s: got -, want +:\n%s", c.name, d)
		}
	}
}
