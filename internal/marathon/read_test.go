package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// read makes an app of a request, or of one that changes old in part.
func read(t *testing.T, text string, old *App) *App {
	t.Helper()
	v, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	a, err := Read(v.(map[string]any), old, true)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return a
}

// part is the JSON of some fields of an app.
func part(t *testing.T, a *App, fields ...string) string {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(must(json.Marshal(a)), &all); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, f := range fields {
		out = append(out, f+"="+string(all[f]))
	}
	return strings.Join(out, " ")
}

func TestOldSpellingsBecomeTheOneThatIsKept(t *testing.T) {
	const port = `{"labels":{},"name":"default","port":0,"protocol":"tcp"}`
	mapping := func(fields string) string {
		return `{"containerPort":0,"hostPort":0,"labels":{},"name":"default",` + fields + `"protocol":"tcp","servicePort":0}`
	}
	for _, c := range []struct{ in, fields, want string }{
		{`"cmd":"x"`, "networks portDefinitions", `networks=[{"mode":"host"}] portDefinitions=[` + port + `]`},
		{`"cmd":"x","portDefinitions":[]`, "portDefinitions", `portDefinitions=[]`},
		{`"cmd":"x","ports":[0,80]`, "portDefinitions",
			`portDefinitions=[{"labels":{},"port":0,"protocol":"tcp"},{"labels":{},"port":80,"protocol":"tcp"}]`},
		{`"cmd":"x","ports":[80],"portDefinitions":[{"port":80,"name":"w"}]`, "portDefinitions ports",
			`portDefinitions=[{"labels":{},"name":"w","port":80,"protocol":"tcp"}] ports=`},
		{`"cmd":"x","networks":[{"mode":"container/bridge"}],"requirePorts":true`, "container portDefinitions requirePorts",
			`container={"type":"MESOS","portMappings":[` + mapping("") + `],"volumes":[]} portDefinitions= requirePorts=false`},
		{`"container":{"docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}}`,
			"networks container",
			`networks=[{"mode":"container/bridge"}] container={"type":"DOCKER","docker":{"forcePullImage":false,"image":"i","parameters":[],"privileged":false},` +
				`"portMappings":[{"containerPort":80,"hostPort":0,"labels":{},"protocol":"tcp","servicePort":0}],"volumes":[]}`},
		{`"container":{"docker":{"image":"i","network":"HOST"},"portMappings":[]}`, "networks portDefinitions",
			`networks=[{"mode":"host"}] portDefinitions=[` + port + `]`},
		{`"container":{"docker":{"image":"i","network":"NONE"}}`, "networks", `networks=[{"mode":"host"}]`},
		{`"container":{"docker":{"image":"i","network":"USER"}}`, "networks", `networks=[{"mode":"container"}]`},
		{`"container":{"docker":{"image":"i","network":"BRIDGE"}},"networks":[{"mode":"host"}]`, "networks",
			`networks=[{"mode":"host"}]`},
		{`"cmd":"x","constraints":[["hostname","unique"],["a","like","B"]]`, "constraints",
			`constraints=[["hostname","UNIQUE"],["a","LIKE","B"]]`},
		{`"cmd":"x","unreachableStrategy":"disabled"`, "unreachableStrategy", `unreachableStrategy="disabled"`},
		{`"cmd":"x","resourceLimits":{"cpus":"unlimited","mem":256}`, "resourceLimits",
			`resourceLimits={"cpus":"unlimited","mem":256}`},
		{`"cmd":"x","nobodyKnows":{"this":1},"args":null`, "nobodyKnows args", `nobodyKnows= args=`},
	} {
		if got := part(t, read(t, `{"id":"/a",`+c.in+`}`, nil), strings.Fields(c.fields)...); got != c.want {
			t.Errorf("%s: (-want +got)\n%s", c.in, cmp.Diff(c.want, got))
		}
	}
}

func TestChecksAreCompleted(t *testing.T) {
	a := read(t, `{"id":"/a","cmd":"x","healthChecks":[{},{"protocol":"TCP","port":1},{"protocol":"COMMAND","command":{"value":"true"}},{"protocol":"MESOS_HTTP","path":"/h","portIndex":2}]}`, nil)
	got := []string{}
	for _, h := range a.HealthChecks {
		show := func(p any) string {
			if v := reflect.ValueOf(p); !v.IsNil() {
				return fmt.Sprint(v.Elem())
			}
			return "-"
		}
		got = append(got, fmt.Sprintf("%s path %s port %s index %s mesos %v", h.Protocol, show(h.Path), show(h.Port),
			show(h.PortIndex), h.MesosCheck()))
	}
	want := []string{"HTTP path / port - index 0 mesos false", "TCP path - port 1 index - mesos false",
		"COMMAND path - port - index - mesos true",
		"MESOS_HTTP path /h port - index 2 mesos true"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestWhatAPartialUpdateReplacesTakesWithIt(t *testing.T) {
	const base = `{"id":"/a","args":["a"],"env":{"A":"1","B":"2"},"resourceLimits":{"mem":256},"portDefinitions":[{"port":81,"name":"w"}]}`
	for _, c := range []struct{ in, fields, want string }{
		{`{}`, "args env resourceLimits portDefinitions",
			`args=["a"] env={"A":"1","B":"2"} resourceLimits= portDefinitions=[{"labels":{},"name":"w","port":81,"protocol":"tcp"}]`},
		{`{"cmd":"x"}`, "cmd args", `cmd="x" args=`},
		{`{"cmd":"x","args":["b"]}`, "cmd args", `cmd="x" args=["b"]`},
		{`{"args":["b"]}`, "cmd args", `cmd= args=["b"]`},
		{`{"env":{"C":"3"}}`, "env", `env={"C":"3"}`},
		{`{"env":null}`, "env", `env={"A":"1","B":"2"}`},
		{`{"ports":[82]}`, "portDefinitions", `portDefinitions=[{"labels":{},"port":82,"protocol":"tcp"}]`},
		{`{"networks":[{"mode":"host"}]}`, "portDefinitions",
			`portDefinitions=[{"labels":{},"name":"default","port":0,"protocol":"tcp"}]`},
		{`{"container":{"docker":{"image":"i","network":"BRIDGE"}}}`, "networks portDefinitions",
			`networks=[{"mode":"container/bridge"}] portDefinitions=`},
		{`{"version":"x","versionInfo":{},"instances":3}`, "version instances", `version= instances=3`},
	} {
		if got := part(t, read(t, c.in, read(t, base, nil)), strings.Fields(c.fields)...); got != c.want {
			t.Errorf("%s: (-want +got)\n%s", c.in, cmp.Diff(c.want, got))
		}
	}
	v := must(Parse([]byte(`{"id":"/a","cmd":"x"}`))).(map[string]any)
	if a, err := Read(v, read(t, base, nil), false); err != nil || a.Env != nil || a.Args != nil {
		t.Errorf("a whole definition: got %+v %v, want nothing of the old one", a, err)
	}
}

func TestPortsThatContradictEachOtherAreRefused(t *testing.T) {
	v := must(Parse([]byte(`{"id":"/a","cmd":"x","ports":[80],"portDefinitions":[{"port":81}]}`))).(map[string]any)
	_, err := Read(v, nil, false)
	if e, ok := errors.AsType[*InvalidError](err); !ok || len(e.Details) != 1 || e.Details[0].Path != "/ports" {
		t.Errorf("got %v, want /ports refused", err)
	}
}

func TestWhatIsNotBuiltIsNamedAndEmptyIsLetThrough(t *testing.T) {
	for _, field := range unbuilt {
		set := func(v string) string {
			parts := strings.Split(field, "/")
			text := v
			for _, p := range slices.Backward(parts) {
				text = fmt.Sprintf(`{%q:%s}`, p, text)
			}
			return text
		}
		for _, full := range []string{`[1]`, `{"a":1}`, `true`, `"x"`, `1`} {
			v := must(Parse([]byte(set(full)))).(map[string]any)
			_, err := Read(v, nil, false)
			e, ok := errors.AsType[*InvalidError](err)
			if !ok || e.Details[0].Path != "/"+field || !strings.Contains(e.Error(), "not supported") {
				t.Errorf("%s: got %v, want it refused by name", set(full), err)
			}
		}
		for _, empty := range []string{`[]`, `{}`, `false`, `null`} {
			if errs := refuseUnbuilt(must(Parse([]byte(set(empty)))).(map[string]any)); len(errs) > 0 {
				t.Errorf("%s: got %v, want it let through", set(empty), errs)
			}
		}
	}
}

func TestDetailsAreInOrderJoinedAndBounded(t *testing.T) {
	in := []Detail{{"/b", []string{"1"}}, {"/a", []string{"2"}}, {"/b", []string{"3"}}}
	e, _ := errors.AsType[*InvalidError](ContentError(in))
	if want := []Detail{{"/a", []string{"2"}}, {"/b", []string{"1", "3"}}}; !cmp.Equal(e.Details, want) {
		t.Errorf("got %v, want %v", e.Details, want)
	}
	if got := e.Error(); got != "Object is not valid: /a: 2; /b: 1, 3" {
		t.Errorf("text: got %s", got)
	}
	many := []Detail{}
	for n := range 3 * maxDetails {
		many = append(many, Detail{fmt.Sprintf("/%04d", n), []string{"x"}})
	}
	if e, _ := errors.AsType[*InvalidError](ShapeError(many)); len(e.Details) != maxDetails || e.Message != WrongShape {
		t.Errorf("got %d details, want %d", len(e.Details), maxDetails)
	}
}

// TestPortsAreAssignedOnceAndKept: no two ports of an app get the same number, none is somebody else's, all are of the
// range, what was given stays, and a later version keeps what it had.
func TestPortsAreAssignedOnceAndKept(t *testing.T) {
	app := func(ports []int) *App {
		a := &App{ID: "/a"}
		for _, p := range ports {
			a.PortDefinitions = append(a.PortDefinitions, PortDefinition{Port: p})
		}
		return a
	}
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.OneOf(rapid.Just(0), rapid.IntRange(10, 25))
		a := app(rapid.SliceOfNDistinct(port, 0, 6, func(p int) string {
			if p == 0 {
				return rapid.StringN(8, 8, 8).Draw(t, "any")
			}
			return fmt.Sprint(p)
		}).Draw(t, "ports"))
		given := a.ServicePorts()
		used := map[int]string{}
		for range rapid.IntRange(0, 6).Draw(t, "used") {
			if p := rapid.IntRange(10, 25).Draw(t, "port"); !slices.Contains(given, p) {
				used[p] = "/other"
			}
		}
		free := 0
		for p := 10; p <= 20; p++ {
			if used[p] == "" && !slices.Contains(given, p) {
				free++
			}
		}
		open := 0
		for _, p := range given {
			if p == 0 {
				open++
			}
		}
		err := a.AssignPorts(nil, used, 10, 20)
		if (err != nil) != (open > free) {
			t.Fatalf("%d ports of %d that are free: got %v", open, free, err)
		}
		if err != nil {
			return
		}
		seen := map[int]bool{}
		for i, p := range a.ServicePorts() {
			if given[i] != 0 && p != given[i] {
				t.Fatalf("port %d was given and is %d", given[i], p)
			}
			if given[i] == 0 && (p < 10 || p > 20 || used[p] != "") || seen[p] {
				t.Fatalf("ports %v: %d is out of range, somebody else's, or there twice", a.ServicePorts(), p)
			}
			seen[p] = true
		}
		next := app(make([]int, len(given)))
		if err := next.AssignPorts(a, used, 10, 20); err != nil || !slices.Equal(next.ServicePorts(), a.ServicePorts()) {
			t.Fatalf("the next version: got %v %v, want %v", next.ServicePorts(), err, a.ServicePorts())
		}
	})
}

func TestACopyMayGetOtherPorts(t *testing.T) {
	a := read(t, `{"id":"/a","container":{"docker":{"image":"i"},"portMappings":[{"servicePort":1}]},"networks":[{"mode":"container/bridge"}],"instances":2}`, nil)
	b := a.Clone()
	b.Container.PortMappings[0].ServicePort = 2
	b.Instances = 5
	if a.Container.PortMappings[0].ServicePort != 1 || a.Instances != 2 {
		t.Errorf("the original changed with its copy: %+v", a)
	}
	if SameConfig(a, b) {
		t.Error("another service port is the same configuration")
	}
	b.Container.PortMappings[0].ServicePort = 1
	b.Version, b.VersionInfo = "v", &VersionInfo{}
	if !SameConfig(a, b) {
		t.Error("another number of instances, or version, is another configuration")
	}
}

func TestARowThatSaysNothingIsNotIntact(t *testing.T) {
	const v = "2026-01-01T00:00:00.000Z"
	for name, a := range map[string]App{
		"another's": {ID: "/b", Version: v}, "no id": {Version: v}, "no version": {ID: "/a"},
		"a version that is none": {ID: "/a", Version: "1"},
		"no config version":      {ID: "/a", Version: v, VersionInfo: &VersionInfo{}},
	} {
		if a.Intact("/a") == nil {
			t.Errorf("%s: taken for app /a", name)
		}
	}
	for _, a := range []App{{ID: "/a", Version: v}, {ID: "/a", Version: v,
		VersionInfo: &VersionInfo{LastConfigChangeAt: v}}} {
		if err := a.Intact("/a"); err != nil {
			t.Errorf("%+v: got %v", a, err)
		}
		if a.Config() != v {
			t.Errorf("config version: got %s, want %s", a.Config(), v)
		}
	}
}
