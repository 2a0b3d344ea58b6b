package marathon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
)

const bridge = `"networks":[{"mode":"container/bridge"}]`

func mapping(fields string) string {
	return bridge + `,"cmd":"x","container":{"type":"MESOS","portMappings":[` + fields + `]}`
}

func volume(fields string) string {
	return `"cmd":"x","container":{"type":"MESOS","volumes":[` + fields + `]}`
}

// TestWhatAnAppCannotMeanIsRefusedByName has one line for each thing that Validate looks for.
func TestWhatAnAppCannotMeanIsRefusedByName(t *testing.T) {
	big := `"cmd":"x","labels":{"a":"` + strings.Repeat("x", MaxAppBytes) + `"}`
	for _, c := range []struct{ in, path, says string }{
		{``, "/", "'cmd' or 'args'"},
		{`"cmd":"x","args":["y"]`, "/", "'cmd' or 'args'"},
		{`"cmd":"x","executor":"mine"`, "/executor", "not supported"},
		{`"cmd":"x","user":"root"`, "/user", "bridge network"},
		{`"gpus":1,"container":{"type":"DOCKER","docker":{"image":"i"}}`, "/gpus", "Mesos containerizer"},
		{`"cmd":"x","role":"other"`, "/role", "expected one of: [prod]"},
		{`"cmd":"x","acceptedResourceRoles":["*","other"]`, "/acceptedResourceRoles", "* and prod"},
		{`"cmd":"x","unreachableStrategy":{"inactiveAfterSeconds":2,"expungeAfterSeconds":1}`, "/unreachableStrategy",
			"less or equal"},
		{`"cmd":"x","cpus":2,"resourceLimits":{"cpus":1}`, "/resourceLimits/cpus", "(2.0)"},
		{`"cmd":"x","mem":128.5,"resourceLimits":{"mem":128}`, "/resourceLimits/mem", "(128.5)"},
		{`"cmd":"x","networks":[{"mode":"host"},{"mode":"host"}]`, "/networks", "single host network"},
		{`"cmd":"x","networks":[{"mode":"container","name":"n"}]`, "/networks(0)/mode", "not supported"},
		{`"cmd":"x","networks":[{"mode":"host","name":"n"}]`, "/networks(0)", "may not have names"},
		{`"cmd":"x","networks":[{"mode":"container/bridge","name":"n"}]`, "/networks(0)", "may not have names"},
		{`"cmd":"x","portDefinitions":[{"port":1}],` + bridge, "/portDefinitions", "host-networking"},
		{`"cmd":"x","container":{"type":"MESOS","portMappings":[{"containerPort":1}]}`, "/container/portMappings",
			"container or container/bridge"},
		{`"cmd":"x","portDefinitions":[{"name":"a"},{"name":"a"}]`, "/portDefinitions", "names must be unique"},
		{`"cmd":"x","portDefinitions":[{"port":7},{"port":7}]`, "/portDefinitions", "Ports must be unique"},
		{mapping(`{"containerPort":1},{"containerPort":1}`), "/container/portMappings", "Ports must be unique"},
		{mapping(`{"containerPort":1,"hostPort":7},{"containerPort":2,"hostPort":7}`), "/container/portMappings",
			"Ports must be unique"},
		{mapping(`{"containerPort":1,"servicePort":7},{"containerPort":2,"servicePort":7}`), "/container/portMappings",
			"Ports must be unique"},
		{mapping(`{"networkNames":["n"]}`), "/container/portMappings(0)/networkNames", "not supported"},
		{mapping(`{"labels":{"VIP_0":"nowhere"}}`), "/container/portMappings(0)/labels(VIP_0)", "<port>"},
		{`"cmd":"x","portDefinitions":[{"labels":{"vip":"a:0"}}]`, "/portDefinitions(0)/labels(vip)", "between 1 and 65535"},
		{`"cmd":"x","container":{"type":"DOCKER"}`, "/container/docker", "not defined"},
		{volume(`{"containerPath":"/a","persistent":{"size":1}}`), "/container/volumes(0)/persistent", "not supported"},
		{volume(`{"containerPath":"/a","external":{"name":"x"}}`), "/container/volumes(0)/external", "not supported"},
		{volume(`{"containerPath":"/a","secret":"x"}`), "/container/volumes(0)/secret", "not supported"},
		{volume(`{"containerPath":"/a"}`), "/container/volumes(0)/hostPath", "empty"},
		{volume(`{"containerPath":"/a","hostPath":"/b"}`), "/container/volumes(0)/mode", "missing"},
		{volume(`{"containerPath":"a","hostPath":"/b","mode":"RO"}`), "/container/volumes(0)/containerPath", "absolute"},
		{volume(`{"containerPath":"/a","hostPath":"/b/../c","mode":"RO"}`), "/container/volumes(0)/hostPath", "absolute"},
		{`"cmd":"x","constraints":[["a","UNIQUE"],["a","UNIQUE"]]`, "/constraints", "must be unique"},
		{`"cmd":"x","constraints":[["a"]]`, "/constraints(0)", "2 or 3 fields"},
		{`"cmd":"x","constraints":[["a","UNIQUE","b"]]`, "/constraints(0)", "does not accept"},
		{`"cmd":"x","constraints":[["a","GROUP_BY","b"]]`, "/constraints(0)", "integer"},
		{`"cmd":"x","constraints":[["a","MAX_PER"]]`, "/constraints(0)", "integer"},
		{`"cmd":"x","constraints":[["a","LIKE","("]]`, "/constraints(0)", "regular expression"},
		{`"cmd":"x","constraints":[["a","UNLIKE","` + strings.Repeat("a", maxPattern+1) + `"]]`, "/constraints(0)",
			"regular expression"},
		{`"cmd":"x","constraints":[["a","IS","b c"]]`, "/constraints(0)", "letters"},
		{`"cmd":"x","constraints":[["a","IS"]]`, "/constraints(0)", "letters"},
		{`"cmd":"x","constraints":[["a","NEAR","b"]]`, "/constraints(0)", "operator must be one of"},
		{`"cmd":"x","healthChecks":[{"protocol":"COMMAND"}]`, "/healthChecks(0)/command", "not defined"},
		{`"cmd":"x","healthChecks":[{"ipProtocol":"IPv6"}]`, "/healthChecks(0)/ipProtocol", "not supported"},
		{`"cmd":"x","healthChecks":[{"portIndex":1}]`, "/healthChecks(0)", "address an element"},
		{`"cmd":"x","healthChecks":[{"protocol":"MESOS_TCP"},{"protocol":"MESOS_HTTP"}]`, "/healthChecks",
			"at most one Mesos"},
		{`"cmd":"x","labels":{"MARINA_PLACEMENT":"tight"}`, "/labels(MARINA_PLACEMENT)", "spread or binpack"},
		{`"cmd":"x","labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"},"instances":2,"upgradeStrategy":{"maximumOverCapacity":0,"minimumHealthCapacity":0}`,
			"/instances", "one instance"},
		{`"cmd":"x","labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"},"upgradeStrategy":{"maximumOverCapacity":0,"minimumHealthCapacity":0.5}`,
			"/upgradeStrategy/minimumHealthCapacity", "got 0.5, expected 0.0"},
		{`"cmd":"x","labels":{"DCOS_MIGRATION_API_VERSION":"v1"}`, "/labels", "DCOS_MIGRATION_API_PATH"},
		{`"cmd":"x","env":{"A=B":"1"}`, "/env", "must not contain '='"},
		{big, "/", "at most 262144 fit"},
	} {
		in := `{"id":"/prod/a",` + strings.TrimSuffix(c.in, ",") + `}`
		if c.in == "" {
			in = `{"id":"/prod/a"}`
		}
		a := read(t, in, nil)
		if a.Role == "" {
			a.Role = "prod"
		}
		errs := a.Validate([]string{"prod"})
		if len(errs) != 1 || errs[0].Path != c.path || !strings.Contains(strings.Join(errs[0].Errors, " "), c.says) {
			t.Errorf("%.80s: got %v, want %s refused with %q", c.in, errs, c.path, c.says)
		}
	}
}

func TestWhatAnAppCanMeanIsAccepted(t *testing.T) {
	for _, in := range []string{
		`"cmd":"x"`, `"args":["x"]`, `"container":{"docker":{"image":"i"}}`, `"cmd":"x","executor":"//cmd"`,
		`"cmd":"x","user":"root",` + bridge,
		`"cmd":"x","gpus":1`, `"cmd":"x","acceptedResourceRoles":["*","prod"]`,
		`"cmd":"x","resourceLimits":{"cpus":1,"mem":"unlimited"}`,
		`"cmd":"x","portDefinitions":[{"port":0},{"port":0}]`,
		mapping(`{"containerPort":53,"protocol":"tcp"},{"containerPort":53,"protocol":"udp"}`),
		mapping(`{"containerPort":0},{"containerPort":0}`), volume(`{"containerPath":"/","hostPath":"/b/","mode":"RW"}`),
		`"cmd":"x","constraints":[["a","UNIQUE"],["a","CLUSTER"],["b","CLUSTER","c"],["a","GROUP_BY"],["a","GROUP_BY","3"],["a","MAX_PER","1"],["a","LIKE","x.*"],["a","UNLIKE","y"],["a","IS",""]]`,
		`"cmd":"x","healthChecks":[{"portIndex":0},{"port":1},{"protocol":"COMMAND","command":{"value":"true"}},{"protocol":"MESOS_TCP"}]`,
		`"cmd":"x","labels":{"MARINA_PLACEMENT":"binpack","MARINA_PRIORITY":"-1000"}`,
		`"cmd":"x","labels":{"DCOS_MIGRATION_API_VERSION":"v1","DCOS_MIGRATION_API_PATH":"/","DCOS_PACKAGE_FRAMEWORK_NAME":"f"}`,
	} {
		a := read(t, `{"id":"/prod/a",`+in+`}`, nil)
		a.Role, a.Version = "prod", "2026-01-01T00:00:00.000Z"
		if errs := a.Validate([]string{"slave_public", "prod"}); len(errs) > 0 {
			t.Errorf("%s: got %v, want none", in, errs)
			continue
		}
		if _, err := Spec(a); err != nil {
			t.Errorf("%s: it is accepted and has no spec: %v", in, err)
		}
	}
}

func TestVIPsAreNamesOrAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"/web:80": "web:80", "web:80": "web:80", "/Prod/Web:8080": "prodweb:8080", "a.b-c:1": "a.b-c:1",
		"198.18.0.9:80": "198.18.0.9:80",
		"[fd00::1]:443": "fd00::1:443",
	} {
		v, err := parseVIP(text)
		got := fmt.Sprintf("%s:%d", v.Name, v.Port)
		if v.Addr.IsValid() {
			got = fmt.Sprintf("%s:%d", v.Addr, v.Port)
		}
		if err != nil || got != want {
			t.Errorf("%s: got %s %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":80", "web", "web:", "web:0", "web:65536", "web:x", "a_b:80", "-a:80", "a..b:80",
		strings.Repeat("a", 64) + ":80"} {
		if v, err := parseVIP(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, v)
		}
	}
}

func TestOnlyTheDatacentersVIPsMayBeGivenByAddress(t *testing.T) {
	ours := netip.MustParsePrefix("198.18.0.0/16")
	for label, refused := range map[string]bool{"198.18.3.4:80": false, "/name:80": false, "198.19.0.1:80": true,
		"8.8.8.8:53": true, "[fd00::1]:80": true} {
		for _, in := range []string{`"cmd":"x","portDefinitions":[{"labels":{"VIP_0":"` + label + `"}}]`,
			mapping(`{"labels":{"VIP_0":"` + label + `"}}`)} {
			if got := read(t, `{"id":"/a",`+in+`}`, nil).ForeignVIPs(ours); len(got) > 0 != refused {
				t.Errorf("%s: got %v, want refused to be %v", in, got, refused)
			}
		}
	}
}

func TestPublishedPortsAreThoseOfTheExternalGroup(t *testing.T) {
	for labels, want := range map[string][]int{
		``: nil, `"HAPROXY_GROUP":"internal"`: nil, `"HAPROXY_GROUP":"external"`: {10, 11},
		`"HAPROXY_GROUP":"internal, external"`: {10, 11},
		`"HAPROXY_1_GROUP":"external"`:         {11}, `"HAPROXY_GROUP":"external","HAPROXY_0_GROUP":""`: {11},
	} {
		a := read(t, `{"id":"/a","cmd":"x","labels":{`+labels+`},"portDefinitions":[{"port":10},{"port":11},{"port":0}]}`,
			nil)
		if got := a.PublishedPorts(); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", labels, got, want)
		}
		a.Version = "2026-01-01T00:00:00.000Z"
		s, err := Spec(a)
		if err != nil {
			t.Fatal(err)
		}
		got := []int(nil)
		for _, p := range s.Tasks[0].Ports {
			if p.Publish && p.Service != 0 {
				got = append(got, int(p.Service))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: the spec publishes %v, want %v", labels, got, want)
		}
	}
}

func TestLimitsAreWhatTheAppSays(t *testing.T) {
	for limits, want := range map[string]string{
		``: "", `"cpus":4`: "cpus 4000", `"cpus":"unlimited"`: fmt.Sprint("cpus ", kernel.Unlimited),
		`"mem":512`: fmt.Sprint("mem ", 512*kernel.MiB),
	} {
		a := read(t, `{"id":"/a","cmd":"x","cpus":0.1,"mem":256,"resourceLimits":{`+limits+`}}`, nil)
		a.Version = "2026-01-01T00:00:00.000Z"
		s, err := Spec(a)
		if err != nil {
			t.Fatal(err)
		}
		task := s.Tasks[0]
		if task.Guarantee.MilliCPU != 100 || task.Guarantee.Mem != 256*kernel.MiB {
			t.Errorf("guaranteed: got %+v", task.Guarantee)
		}
		got := ""
		if l := task.Limit.MilliCPU; l != 0 {
			got = fmt.Sprint("cpus ", l)
		}
		if l := task.Limit.Mem; l != 0 {
			got = fmt.Sprint("mem ", l)
		}
		if got != want {
			t.Errorf("limits {%s}: got %q, want %q", limits, got, want)
		}
	}
}
