package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

const (
	api     = "/service/marathon/v2"
	changed = `{"version": "2026-01-01T00:00:00Z", "deploymentId": "d1"}`
	web     = `{"id": "/prod/web", "instances": 3, "tasksRunning": 2, "tasksHealthy": 1, "cpus": 0.25, "mem": 64,
		"healthChecks": [{}], "deployments": [{"id": "d1"}], "container": {"docker": {"image": "nginx:1"}}, "version": "v7",
		"lastTaskFailure": {"taskId": "web.1", "state": "TASK_FAILED", "message": "exit 3", "timestamp": "2020-01-01T00:00:00Z"}}`
	vips = `[{"vip": "other:80", "protocol": "tcp", "address": "198.18.0.1:80", "owner": "/other", "published": [{"url": "http://no"}]},
		{"vip": "web.marathon:80", "protocol": "tcp", "address": "198.18.3.7:80", "owner": "/prod/web", "published": []},
		{"vip": "web.marathon:443", "protocol": "tcp", "address": "198.18.3.7:443", "owner": "/prod/web",
		"published": [{"url": "http://192.0.2.1:10000"}, {"url": "http://192.0.2.1:10001"}]}]`
)

func TestServicesAreListedWithHowTheyAre(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("GET "+api+"/apps", `{"apps": [`+web+`, {"id": "/job", "instances": 1, "tasksRunning": 1,
		"cmd": "sleep 1", "cpus": 1, "mem": 128}]}`)
	r := clitest.Run(t, datacenter, "", "app", "list")
	clitest.Same(t, "list", r.Out, ""+
		"ID         RUNNING  HEALTHY  CPUS  MEM  STATE      RUNS\n"+
		"/prod/web  2/3      1/3      0.25  64   deploying  nginx:1\n"+
		"/job       1/1      -        1     128  -          sleep 1\n")
	datacenter.Asked(t, "list", "GET "+api+"/apps")
}

func TestEachVerbAsksForWhatItsArgumentsSay(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("PATCH "+api+"/apps/prod/web", changed, "DELETE "+api+"/apps/prod/web", changed,
		"POST "+api+"/apps/prod/web/restart", changed)
	follow := ", deployment d1 (follow it: marina deployment follow d1)\n"
	for args, want := range map[string][2]string{
		"scale /prod/web 5":        {"PATCH " + api + `/apps/prod/web {"instances":5}`, "scaled /prod/web to 5"},
		"scale prod/web 0 --force": {"PATCH " + api + `/apps/prod/web?force=true {"instances":0}`, "scaled prod/web to 0"},
		"restart /prod/web":        {"POST " + api + "/apps/prod/web/restart", "restarted /prod/web"},
		"restart prod/web --force": {"POST " + api + "/apps/prod/web/restart?force=true", "restarted prod/web"},
		"remove /prod/web":         {"DELETE " + api + "/apps/prod/web?force=false", "removed /prod/web"},
		"update /prod/web cpus=2":  {"PATCH " + api + `/apps/prod/web {"cpus":2}`, "updated /prod/web"},
	} {
		r := clitest.Run(t, datacenter, "", append([]string{"app"}, strings.Fields(args)...)...)
		clitest.Same(t, args, r.Out, want[1]+follow)
		datacenter.Asked(t, args, want[0])
	}
	for _, verb := range []string{"scale /none 1", "restart /none", "remove /none", "show /none", "update /none a=b"} {
		clitest.Run(t, datacenter, "", append([]string{"app"}, strings.Fields(verb)...)...).Says(t, verb,
			exit.NotFound, "/apps/none")
		locked := clitest.Answers(409, `{"message": "App is locked", "deployments": [{"id": "d9"}]}`)
		clitest.Run(t, locked, "", append([]string{"app"}, strings.Fields(verb)...)...).
			Says(t, verb+", locked", exit.Conflict, "marina deployment follow d9, or --force")
	}
	for args, says := range map[string]string{
		"scale /x -1": "-1", "scale /x 1.5": `"1.5" is not a number of instances`, "scale": "scale ID COUNT",
		"remove":      "remove ID",
		"restart a b": "restart ID", "update": "got 0 arguments", "update /x cpus": `"cpus" is not NAME=VALUE`,
	} {
		clitest.Run(t, datacenter, "", append([]string{"app"}, strings.Fields(args)...)...).Says(t, args, exit.BadUsage, says)
	}
}

func TestAServiceIsShownWithAllThatIsKnownOfIt(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("GET "+api+"/apps/prod/web", `{"app": `+web+`}`, "GET /net/v1/vips", vips,
		"GET "+api+"/queue", `{"queue": [{"app": {"id": "/prod/web"}, "count": 1, "refusal": "0 of 2 machines fit: 2 lack mem", "hold": "north"}]}`)
	r := clitest.Run(t, datacenter, "", "app", "show", "/prod/web")
	for _, want := range []string{"healthy    1/3\n", "cpus       0.25\n", "version    v7\n", "deployment  d1\n",
		"TASK_FAILED exit 3\n",
		"waiting  1 instances: 0 of 2 machines fit: 2 lack mem; room is kept for one on north\n",
		"name     web.marathon:80\naddress  198.18.3.7:80 (tcp)\n", "from outside  http://192.0.2.1:10000\n"} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("show: no %q in\n%s", want, r.Out)
		}
	}
	if strings.Contains(r.Out, "other") {
		t.Errorf("show: what is another's in\n%s", r.Out)
	}
	for flag, want := range map[string]string{"--address": "198.18.3.7:80\n", "--outside": "http://192.0.2.1:10000\n"} {
		clitest.Same(t, flag, clitest.Run(t, datacenter, "", "app", "show", "/prod/web", flag).Out, want)
	}
	if r := clitest.Run(t, datacenter, "", "app", "show", "/prod/web", "--json"); !strings.Contains(r.Out,
		`"tasksHealthy": 1`) {
		t.Errorf("show --json: %q", r.Out)
	}

	bare := clitest.Answering("GET "+api+"/apps/prod/web", `{"app": `+web+`}`, "GET /net/v1/vips", `[]`)
	for flag, says := range map[string]string{"--address": "has no virtual address", "--outside": "is not published"} {
		clitest.Run(t, bare, "", "app", "show", "/prod/web", flag).Says(t, flag+" of none", exit.NotFound, says, "label")
	}
	clitest.Run(t, clitest.Answering("GET "+api+"/apps/prod/web", `{"app": `+web+`}`), "", "app", "show",
		"/prod/web", "--address").
		Says(t, "no addresses to be had", exit.NotFound, "/net/v1/vips")
}

func TestAFileThatIsNoDefinitionIsNotSent(t *testing.T) {
	clitest.Home(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"bad.json": "{", "list.json": "[]", "noid.json": `{"cmd": "x"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	datacenter := clitest.Answering()
	for file, says := range map[string]string{"bad.json": "is not a JSON service definition",
		"list.json": "is not a JSON service definition",
		"noid.json": `has no "id"`, "none.json": "no such file"} {
		for _, verb := range []string{"add", "update"} {
			clitest.Run(t, datacenter, "", "app", verb, filepath.Join(dir, file)).Says(t, verb+" "+file, exit.BadUsage, says)
		}
	}
	clitest.Run(t, datacenter, "", "app", "add", dir).Says(t, "a directory", exit.Failed, dir)
	datacenter.Asked(t, "what is no definition")
}
