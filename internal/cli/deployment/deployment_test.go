package deployment_test

import (
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

const (
	api    = "/service/marathon/v2"
	events = api + "/events?event_type=deployment_success&event_type=deployment_failed"
	two    = `[{"id": "d1", "affectedApps": ["/web", "/db"], "currentStep": 1, "totalSteps": 3, "reason": "0 of 2 machines fit",
		"currentActions": [{"action": "ScaleApplication", "app": "/web"}, {"action": "RestartApplication", "app": "/db"}]},
		{"id": "d2", "affectedApps": ["/other"], "currentStep": 2, "totalSteps": 2, "currentActions": []}]`
)

func TestRunningDeploymentsAreListedWithWhatTheyDoAndWaitFor(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("GET "+api+"/deployments", two)
	r := clitest.Run(t, datacenter, "", "deployment", "list")
	clitest.Same(t, "list", r.Out, ""+
		"ID  APPS      STEP  DOING                    WAITS FOR\n"+
		"d1  /web,/db  1/3   Scale /web, Restart /db  0 of 2 machines fit\n"+
		"d2  /other    2/2   -                        -\n")
	if r := clitest.Run(t, datacenter, "", "deployment", "list", "--json"); r.Code != 0 ||
		!strings.HasPrefix(r.Out, "[\n  {") {
		t.Errorf("list --json: exit %d, printed %q, want the answer", r.Code, r.Out)
	}
	r = clitest.Run(t, clitest.Answers(200, `[]`), "", "deployment", "list")
	clitest.Same(t, "list of nothing", r.Out, "Nothing is being deployed.\n")
	for what, tc := range map[string]struct {
		status int
		body   string
		code   int
		says   string
	}{
		"no leader":    {503, `{"message": "no leader"}`, exit.Unreachable, "no leader"},
		"not allowed":  {403, `{"message": "bob may not read this"}`, exit.Denied, "bob may not"},
		"no answer":    {200, `{"id": "d1"}`, exit.Failed, "not what this version expects"},
		"half a proxy": {502, `<html>`, exit.Unreachable, "answered 502"},
	} {
		clitest.Run(t, clitest.Answers(tc.status, tc.body), "", "deployment", "list").Says(t, what, tc.code, tc.says)
	}
}

// ending is a datacenter with both deployments on their way, of whose ends the event stream tells.
func ending(stream string) *clitest.Canned {
	return clitest.Answering("GET "+api+"/deployments", two, "GET "+api+"/events", stream,
		"DELETE "+api+"/deployments/d2", `{"deploymentId": "d3", "version": "2026-01-01T00:00:00Z"}`)
}

func TestFollowingADeploymentEndsWithIt(t *testing.T) {
	clitest.Home(t)
	for what, tc := range map[string]struct {
		id, stream string
		code       int
		says       []string
	}{
		"success": {"d2", "event: deployment_success\ndata: {\"id\": \"d2\"}\n\n", exit.OK, nil},
		"failure": {"d2", "event: deployment_failed\ndata: {\"id\": \"d2\", \"reason\": \"its instances die\"}\n\n",
			exit.Failed,
			[]string{"deployment d2 ended without success: its instances die", "marina app list"}},
		"cancelled": {"d2", "event: deployment_failed\ndata: {\"id\": \"d2\"}\n\n", exit.Failed,
			[]string{"without success: cancelled"}},
		"another's end first": {"d2", "event: deployment_failed\ndata: {\"id\": \"d1\"}\n\nevent: deployment_success\n" +
			"data: {\"id\": \"d2\"}\n\n", exit.OK, nil},
		"what is no event": {"d2", "event: deployment_failed\ndata: nonsense\n\nevent: deployment_success\ndata: {\"id\": " +
			"\"d2\"}\n\n",
			exit.OK, nil},
		"one that ended before": {"d9", "", exit.OK, nil},
	} {
		datacenter := ending(tc.stream)
		clitest.Run(t, datacenter, "", "deployment", "follow", tc.id).Says(t, what, tc.code, tc.says...)
	}
	clitest.Run(t, ending(""), "", "deployment", "follow", "d1", "--timeout", "50ms").
		Says(t, "one that does not end", exit.Timeout, "deployment d1 still runs", "marina deployment list")
	clitest.Run(t, ending(""), "", "deployment", "follow").Says(t, "no id", exit.BadUsage, "follow ID")
	clitest.Run(t, clitest.Answers(401, `{"message": "no token"}`), "", "deployment", "follow", "d1").
		Says(t, "no token", exit.Denied, "marina login")
}

func TestARollbackIsADeploymentOfItsOwnUnlessItIsForced(t *testing.T) {
	clitest.Home(t)
	datacenter := ending("event: deployment_success\ndata: {\"id\": \"d3\"}\n\n")
	r := clitest.Run(t, datacenter, "", "deployment", "rollback", "d2")
	clitest.Same(t, "rollback", r.Out, "rolled back d2, deployment d3 (follow it: marina deployment follow d3)\n")
	datacenter.Asked(t, "rollback", "DELETE "+api+"/deployments/d2")
	r = clitest.Run(t, datacenter, "", "deployment", "rollback", "d2", "--force")
	clitest.Same(t, "rollback --force", r.Out, "cancelled deployment d2\n")
	datacenter.Asked(t, "rollback --force", "DELETE "+api+"/deployments/d2?force=true")
	r = clitest.Run(t, datacenter, "", "deployment", "rollback", "d2", "--wait")
	clitest.Same(t, "rollback --wait", r.Out, "rolled back d2\n")
	datacenter.Asked(t, "rollback --wait", "DELETE "+api+"/deployments/d2", "GET "+events, "GET "+api+"/deployments")
	r = clitest.Run(t, datacenter, "", "deployment", "rollback", "d2", "--json")
	if !strings.Contains(r.Out, `"deploymentId": "d3"`) || strings.Contains(r.Out, "rolled back") {
		t.Errorf("rollback --json printed %q, want the answer alone", r.Out)
	}

	clitest.Run(t, datacenter, "", "deployment", "rollback", "d9").Says(t, "none", exit.NotFound, "there is no")
	clitest.Run(t, datacenter, "", "deployment", "rollback").Says(t, "no id", exit.BadUsage, "rollback ID")
	clitest.Run(t, clitest.Answers(409, `{"message": "App is locked", "deployments": [{"id": "d1"}]}`), "", "deployment",
		"rollback", "d2").
		Says(t, "locked", exit.Conflict, "App is locked", "marina deployment follow d1, or --force")
	clitest.Run(t, clitest.Answers(200, "rolled back"), "", "deployment", "rollback", "d2").
		Says(t, "no answer", exit.Failed, "not what this version expects")
}
