package marathon

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
		if len(v.found) != 1 || !strings.Contains(v.found[0].Path, "MARINA_PRIORITY") ||
			!strings.Contains(v.found[0].Errors[0], "-1000 to 1000") {
			t.Errorf("priority %q: got %v, want one error that names the label and the range", text, v.found)
		}
	}
}

var update = flag.Bool("update", false, "write what happens into testdata")

// TestSpec shows what instances are made from.
func TestSpec(t *testing.T) {
	const in = `{"id":"/prod/web","container":{"type":"DOCKER","docker":{"image":"web:1","forcePullImage":true},"portMappings":[
		{"containerPort":80,"name":"http","labels":{"VIP_0":"/prod/web:8080","VIP_1":"198.18.0.9:80"}},{"containerPort":53,"hostPort":5353,"protocol":"udp,tcp"}],
		"volumes":[{"containerPath":"/data","hostPath":"/srv","mode":"RW"}]},"networks":[{"mode":"container/bridge"}],"cpus":0.5,"mem":64,"disk":10,
		"resourceLimits":{"cpus":"unlimited","mem":128},"env":{"PORT":"9","A":"b"},"labels":{"HAPROXY_GROUP":"internal,external","HAPROXY_1_GROUP":"none","a-b":"c","MARINA_PLACEMENT":"binpack"},
		"constraints":[["@hostname","LIKE","a.*"]],"taskKillGracePeriodSeconds":7,"user":"web","args":["-v"],"healthChecks":[
		{"protocol":"MESOS_HTTP","path":"/h","portIndex":1,"intervalSeconds":2},{"protocol":"COMMAND","command":{"value":"true"}},{"protocol":"TCP","port":81,"maxConsecutiveFailures":0}]}`
	accept := func(in string, old *App) *App {
		v, err := Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		a, err := Read(v.(map[string]any), old, true)
		if err != nil {
			t.Fatal(err)
		}
		const version = "2000-01-01T00:00:00.000Z"
		a.Role, a.Version, a.VersionInfo = "prod", version, &VersionInfo{version, version}
		if errs := a.Validate([]string{"prod"}); len(errs) > 0 {
			t.Fatal(errs)
		}
		if err := a.AssignPorts(old, map[int]string{}, 10000, 20000); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := accept(in, nil)
	s, err := Spec(a)
	if err != nil {
		t.Fatal(err)
	}
	got := string(must(json.MarshalIndent(s, "", " "))) + "\n"
	if *update {
		if err := os.WriteFile("testdata/spec.json", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/spec.json")
	if d := cmp.Diff(string(want), got); err != nil || d != "" {
		t.Errorf("spec (-want +got): %v\n%s", err, d)
	}
	scaled, err := Spec(accept(`{"id":"/prod/web","instances":4,"resourceLimits":{"cpus":"unlimited","mem":128}}`, a))
	if err != nil || scaled.ID != s.ID {
		t.Errorf("spec after a change of scale: got %s %v, want the same %s", scaled.ID, err, s.ID)
	}
}
