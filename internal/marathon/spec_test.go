package marathon

import (
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
)

func TestAnAppSaysWhoPaysWhatGoesFirstAndWhatItAccepts(t *testing.T) {
	for _, c := range []struct {
		id       string
		accepts  []string
		priority string
		role     string
		want     kernel.Reserved
		rank     int
	}{
		{"/web", nil, "", "/", kernel.ReservedToo, 0},
		{"/prod/web", []string{"*"}, "10", "/prod", kernel.ReservedNone, 10},
		{"/prod/web/api", []string{"prod"}, "-1000", "/prod/web", kernel.ReservedOnly, -1000},
		{"/prod/web/api", []string{"*", "prod"}, "0", "/prod/web", kernel.ReservedToo, 0},
	} {
		a := &App{ID: c.id, CMD: new("true"), AcceptedResourceRoles: c.accepts, Version: "2026-01-01T00:00:00.000Z"}
		if c.priority != "" {
			a.Labels = map[string]string{"MARINA_PRIORITY": c.priority}
		}
		s, err := Spec(a)
		if err != nil {
			t.Fatal(err)
		}
		if s.Role != c.role || s.Reserved != c.want || s.Priority != c.rank {
			t.Errorf("%s accepting %q with priority %q: got role %s, reserved %q, priority %d, want %s, %q, %d",
				c.id, c.accepts, c.priority, s.Role, s.Reserved, s.Priority, c.role, c.want, c.rank)
		}
	}
}

func TestAPriorityThatIsNoneIsRefusedByName(t *testing.T) {
	for _, text := range []string{"high", "1001", "-1001", "1.5", ""} {
		var v validator
		v.labels(&App{Labels: map[string]string{"MARINA_PRIORITY": text}})
		if len(v.found) != 1 || !strings.Contains(v.found[0].Path, "MARINA_PRIORITY") || !strings.Contains(v.found[0].Errors[0], "-1000 to 1000") {
			t.Errorf("priority %q: got %v, want one error that names the label and the range", text, v.found)
		}
	}
}
