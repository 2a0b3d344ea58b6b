package kube_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

// environment is what a verb is given beside a datacenter.
func environment(t *testing.T, api http.Handler) *command.Env {
	t.Helper()
	clitest.Home(t)
	srv := httptest.NewServer(api)
	t.Cleanup(srv.Close)
	return &command.Env{Printer: output.Printer{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}},
		Options: client.Options{URL: srv.URL, Token: "t", State: t.TempDir()}}
}

func connected(t *testing.T, api http.Handler) *client.Client {
	t.Helper()
	cl, err := environment(t, api).Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func TestOnlyWhatCanBeAClustersNameBecomesAPath(t *testing.T) {
	for _, name := range []string{"a", "7", "demo", "a-b-1", strings.Repeat("a", kubernetes.MaxName)} {
		if err := kube.CheckName(name); err != nil {
			t.Errorf("%q: %v, want it taken", name, err)
		}
	}
	for _, name := range []string{"", "-a", "a-", "A", "a_b", "a.b", "a/b", "../x", "ä", "a b",
		strings.Repeat("a", kubernetes.MaxName+1)} {
		if err := kube.CheckName(name); !exit.Is(err, exit.BadUsage) ||
			!strings.Contains(err.Error(), "cannot be a cluster's name") {
			t.Errorf("%q: %v, want it refused", name, err)
		}
	}
	if got := kube.Path("demo") + " " + kube.Path("demo",
		"events"); got != "/kubernetes/v1/clusters/demo /kubernetes/v1/clusters/demo/events" {
		t.Errorf("paths: %s", got)
	}
}

func TestAClusterThatIsNotThereIsALookAtTheListAway(t *testing.T) {
	api := clitest.Answering("GET /kubernetes/v1/clusters/demo", `{"name": "demo", "state": "ready"}`)
	cl := connected(t, api)
	view, b, err := kube.Get(t.Context(), cl, "demo", "?cost=true")
	if err != nil || view.Name != "demo" || !strings.Contains(string(b), `"ready"`) {
		t.Errorf("got %+v, %s, %v", view, b, err)
	}
	api.Asked(t, "get", "GET /kubernetes/v1/clusters/demo?cost=true")
	_, _, err = kube.Get(t.Context(), cl, "none", "")
	if e, ok := err.(*exit.Error); !ok || e.Code != exit.NotFound || e.Next != "marina cluster list" {
		t.Errorf("none: %#v, want what to do next", err)
	}
	api.Asked(t, "none", "GET /kubernetes/v1/clusters/none")
	if _, _, err = kube.Get(t.Context(), cl, "No", ""); !exit.Is(err, exit.BadUsage) {
		t.Errorf("what is no name: %v", err)
	}
	api.Asked(t, "what is no name")
}

func TestADefinitionIsCreatedOrPut(t *testing.T) {
	const demo = "/kubernetes/v1/clusters/demo"
	for status, created := range map[string]bool{"200": false, "201": true} {
		cl := connected(t, clitest.Answering("PUT "+demo+" "+status, `{"name": "demo", "id": "demo-1"}`))
		view, isNew, err := kube.Put(t.Context(), cl, &kubernetes.Definition{Name: "demo"})
		if err != nil || isNew != created || view.ID != "demo-1" {
			t.Errorf("status %s: %+v, new %v, %v", status, view, isNew, err)
		}
	}
	for what, status := range map[string]string{"taken": "409", "no room": "422"} {
		cl := connected(t, clitest.Answering("POST /kubernetes/v1/clusters "+status, `{"message": "demo cannot be"}`,
			"PUT "+demo+" "+status,
			`{"message": "demo cannot be"}`))
		if _, err := kube.Create(t.Context(), cl, &kubernetes.Definition{Name: "demo"}); err == nil ||
			!strings.Contains(err.Error(), "cannot be") {
			t.Errorf("create, %s: %v", what, err)
		}
		if _, _, err := kube.Put(t.Context(), cl, &kubernetes.Definition{Name: "demo"}); err == nil ||
			!strings.Contains(err.Error(), "cannot be") {
			t.Errorf("put, %s: %v", what, err)
		}
	}
	cl := connected(t, clitest.Answers(200, `demo`))
	if _, err := kube.Create(t.Context(), cl, &kubernetes.Definition{Name: "demo"}); err == nil {
		t.Error("create: an answer that is none was taken")
	}
	if _, _, err := kube.Put(t.Context(), cl, &kubernetes.Definition{Name: "demo"}); err == nil {
		t.Error("put: an answer that is none was taken")
	}
}

func TestListsAreWhatTheAPIAnswers(t *testing.T) {
	cl := connected(t, clitest.Answering("GET /kubernetes/v1/clusters", `{"clusters": [{"name": "a"}, {"name": "b"}]}`,
		"GET /kubernetes/v1/versions", `{"versions": [{"minor": "1.37"}]}`,
		"GET /kubernetes/v1/clusters/a/events", `{"events": [{"message": "created"}, {"message": "ready"}]}`))
	all, _, err := kube.List(t.Context(), cl)
	if err != nil || len(all) != 2 || all[1].Name != "b" {
		t.Errorf("clusters: %+v, %v", all, err)
	}
	versions, _, err := kube.Versions(t.Context(), cl)
	if err != nil || len(versions) != 1 || versions[0].Minor != "1.37" {
		t.Errorf("versions: %+v, %v", versions, err)
	}
	events, _, err := kube.Events(t.Context(), cl, "a")
	if err != nil || len(events) != 2 {
		t.Errorf("events: %+v, %v", events, err)
	}
	if _, _, err := kube.Events(t.Context(), cl, "b"); !exit.Is(err, exit.NotFound) {
		t.Errorf("events of none: %v", err)
	}
}

func TestNamesAreCompletedWhereSomebodyAnswers(t *testing.T) {
	clusters := clitest.Answering("GET /kubernetes/v1/clusters",
		`{"clusters": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}`,
		"GET /kubernetes/v1/versions", `{"versions": [{"minor": "1.37"}, {"minor": "1.36"}]}`)
	for what, tc := range map[string]struct {
		complete func(*command.Env) cobra.CompletionFunc
		args     []string
		word     string
		want     []string
	}{
		"one":                  {kube.CompleteOne, nil, "", []string{"a", "b", "c"}},
		"no more than one":     {kube.CompleteOne, []string{"a"}, "", nil},
		"those not named yet":  {kube.CompleteMore, []string{"c", "a"}, "", []string{"b"}},
		"the first of a list":  {kube.CompleteList, nil, "", []string{"a", "b", "c"}},
		"the third of a list":  {kube.CompleteList, nil, "a,b,", []string{"a,b,a", "a,b,b", "a,b,c"}},
		"a version":            {kube.CompleteVersions, nil, "", []string{"1.37", "1.36"}},
		"in the middle of one": {kube.CompleteList, nil, "a,b,x", []string{"a,b,a", "a,b,b", "a,b,c"}},
	} {
		got, directive := ask(t, clusters, tc.complete, tc.args, tc.word)
		if !slices.Equal(got, tc.want) || directive&cobra.ShellCompDirectiveNoFileComp == 0 {
			t.Errorf("%s: %q, directive %v, want %q and no files", what, got, directive, tc.want)
		}
		if got, directive := ask(t, clitest.Answers(503, `{}`), tc.complete, tc.args, tc.word); len(got) != 0 ||
			directive&cobra.ShellCompDirectiveNoFileComp == 0 {
			t.Errorf("%s, without a leader: %q, directive %v, want nothing", what, got, directive)
		}
	}
}

func ask(t *testing.T, api http.Handler, complete func(*command.Env) cobra.CompletionFunc, args []string,
	word string) ([]string, cobra.ShellCompDirective) {
	t.Helper()
	c := &cobra.Command{}
	c.SetContext(t.Context())
	return complete(environment(t, api))(c, args, word)
}
