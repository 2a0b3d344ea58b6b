package marathon

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIdsAreMadeAbsolute(t *testing.T) {
	for _, c := range []struct{ id, parent, want string }{
		{"web", "/", "/web"}, {"/web", "/prod", "/web"}, {"web", "/prod", "/prod/web"}, {"../web", "/prod/eu", "/prod/web"},
		{"./web", "/prod", "/prod/web"}, {"//prod//web/", "/x", "/prod/web"}, {"/a/../b", "/", "/b"}, {"a.b.c", "/",
			"/a.b.c"},
		{"/" + strings.Repeat("a", MaxAppID-1), "/", "/" + strings.Repeat("a", MaxAppID-1)},
	} {
		if got, errs := AppID(c.id, c.parent); got != c.want || len(errs) > 0 {
			t.Errorf("%.40s in %s: got %s %q, want %s", c.id, c.parent, got, errs, c.want)
		}
	}
}

func TestIdsThatNameNoAppAreRefused(t *testing.T) {
	for id, says := range map[string]string{
		"": "at least one", "/": "root", "..": "root", "/..": "root", "/Web": "regular expression",
		"/a_b": "regular expression", "/-a": "regular expression",
		"/a-": "regular expression", "/a..b": "regular expression", "/web/restart": "reserved", "/web/tasks": "reserved",
		"/web/versions": "reserved",
		"/web/.":        "reserved", "/a b": "regular expression", "/é": "regular expression", "/a/*": "regular expression",
		"/" + strings.Repeat("a", MaxAppID): "at most",
	} {
		if got, errs := AppID(id, "/"); !strings.Contains(strings.Join(errs, " "), says) {
			t.Errorf("%.40q: got %s %q, want an error about %s", id, got, errs, says)
		}
	}
	if _, errs := AppID("web", "/"+strings.Repeat("a", MaxAppID-2)); len(errs) != 1 {
		t.Errorf("a short id in a long group: got %q, want one error", errs)
	}
}

// TestAnIdStaysWhatItIs: it is itself in any group, lies below its groups and nothing else, and fits into the names
// that are made of it.
func TestAnIdStaysWhatItIs(t *testing.T) {
	segment := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,3}[a-z0-9])?(\.[a-z0-9]{1,2})?|\.\.?|[A-Z_]`)
	rapid.Check(t, func(t *rapid.T) {
		id, errs := AppID(strings.Join(rapid.SliceOfN(segment, 1, 6).Draw(t, "segments"), "/"),
			rapid.SampledFrom([]string{"/", "/g", "/g/h"}).Draw(t, "in"))
		if len(errs) > 0 {
			return
		}
		if again, errs := AppID(id, "/anywhere/else"); again != id || len(errs) > 0 {
			t.Fatalf("%s: got %s %q the second time", id, again, errs)
		}
		for group := Parent(id); ; group = Parent(group) {
			if !Under(id, group) || Under(group, id) {
				t.Fatalf("%s is not below %s alone", id, group)
			}
			if group == "/" {
				break
			}
			if Under(id+"x", id) || Under(group+"x/y", group) {
				t.Fatalf("what begins like %s is below it", group)
			}
		}
		if top := TopGroup(id); top != "/" && (!Under(id, top) || Parent(top) != "/") {
			t.Fatalf("%s: top group %s", id, top)
		}
		group := GroupPrefix(id) + "6f1f5a0e-7d5e-4c4e-9a43-2f9c2f2b6c11"
		for _, task := range []string{group + TaskSuffix, group, group + "._app.17", group + ".web.2"} {
			if got, ok := GroupOfTask(task); !ok || got != group {
				t.Fatalf("task %s: got %s %v, want %s", task, got, ok, group)
			}
		}
	})
}

func TestNoTaskIdIsNone(t *testing.T) {
	for _, id := range []string{"", "web", "web.", ".instance-x", "web.instance-", "instance-6f1f5a0e"} {
		if got, ok := GroupOfTask(id); ok {
			t.Errorf("%q: got %s, want none", id, got)
		}
	}
	if got, ok := GroupOfTask("prod_web.6f1f5a0e-7d5e-4c4e-9a43-2f9c2f2b6c11"); !ok ||
		got != "prod_web.6f1f5a0e-7d5e-4c4e-9a43-2f9c2f2b6c11" {
		t.Errorf("an old task id: got %s %v", got, ok)
	}
}

func TestTimesSortAsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string) time.Time {
			return time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, name)).In(time.FixedZone("x", 3600))
		}
		a, b := at("a"), at("b")
		if (Timestamp(a) < Timestamp(b)) != a.Before(b) {
			t.Fatalf("%v and %v are %s and %s", a, b, Timestamp(a), Timestamp(b))
		}
		if back, ok := ParseTimestamp(Timestamp(a)); !ok || !back.Equal(a) {
			t.Fatalf("%v comes back as %v", a, back)
		}
	})
	if got := Timestamp(time.Time{}); got != "" {
		t.Errorf("no time: got %q, want none", got)
	}
	for _, s := range []string{"", "2026-01-01", "2026-01-01T00:00:00Z", "2026-13-01T00:00:00.000Z"} {
		if _, ok := ParseTimestamp(s); ok {
			t.Errorf("%q is read as a time", s)
		}
	}
}
