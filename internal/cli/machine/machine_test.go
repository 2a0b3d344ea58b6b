package machine_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

const (
	gi = 1 << 30

	connected = `{"id": "m-1", "hostname": "north", "address": "192.0.2.1", "connected": true, "groups": 3,
		"total": {"milliCPU": 8000, "mem": 17179869184}, "used": {"milliCPU": 1500, "mem": 1073741824}, "subnet": "10.128.0.0/24",
		"ports": {"first": 31000, "last": 32000}, "attributes": {"rack": "a", "disk": "ssd"}, "warnings": ["few keys"],
		"reserved": [{"role": "/prod", "amount": {"milliCPU": 2000}}], "version": "1.2", "kernel": "6.1", "cgroup": "v2"}`
	silent = `{"id": "m-2", "hostname": "south", "address": "192.0.2.2", "groups": 0,
		"total": {"milliCPU": 4000, "mem": 8589934592}, "used": {}}`
)

func away(since time.Duration) string {
	return fmt.Sprintf(`{"id": "m-3", "hostname": "west", "address": "192.0.2.3", "away": %q, "connected": false, "groups": 1,
		"total": {"milliCPU": 4000, "mem": 8589934592}, "used": {"milliCPU": 250, "mem": 268435456}}`,
		time.Now().Add(-since).Format(time.RFC3339))
}

func TestTheListTellsHowEachMachineIsReached(t *testing.T) {
	clitest.Home(t)
	api := clitest.Answering("GET /machines/v1", `{"machines": [`+connected+`, `+silent+`, `+away(2*time.Hour)+`]}`)
	r := clitest.Run(t, api, "", "machine", "list")
	clitest.Same(t, "list", r.Out, ""+
		"ID   HOSTNAME  ADDRESS    STATE               INSTANCES  CPUS       MEM\n"+
		"m-1  north     192.0.2.1  connected           3          1.5 of 8   1 GiB of 16 GiB\n"+
		"m-2  south     192.0.2.2  silent              0          0 of 4     0 B of 8 GiB\n"+
		"m-3  west      192.0.2.3  unreachable for 2h  1          0.25 of 4  256 MiB of 8 GiB\n")
	r = clitest.Run(t, clitest.Answering("GET /machines/v1", `{"machines": []}`), "", "machine", "list")
	clitest.Same(t, "an empty pool", r.Out, "ID  HOSTNAME  ADDRESS  STATE  INSTANCES  CPUS  MEM\n")
}

func TestAMachineIsShownWithWhatIsReservedAndWhatLimitsIt(t *testing.T) {
	clitest.Home(t)
	api := clitest.Answering("GET /machines/v1/m-1", connected, "GET /machines/v1/m%2F1", silent)
	r := clitest.Run(t, api, "", "machine", "show", "m-1")
	for _, want := range []string{"subnet      10.128.0.0/24\n", "host ports  31000-32000\n",
		"reserved for /prod  2 cpus\n",
		"attribute disk  ssd\nattribute rack  a\n", "warning  few keys\n"} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("show: no %q in\n%s", want, r.Out)
		}
	}
	api.Asked(t, "show", "GET /machines/v1/m-1")
	clitest.Run(t, api, "", "machine", "show", "m/1").Says(t, "an id with a slash", 0)
	api.Asked(t, "an id with a slash", "GET /machines/v1/m%2F1")
	clitest.Run(t, api, "", "machine", "show", "m-9").Says(t, "none", exit.NotFound, "there is no /machines/v1/m-9")
	clitest.Run(t, api, "", "machine", "show").Says(t, "no id", exit.BadUsage, "show ID", "marina machine show --help")
}

func TestAPartOfAMachineIsReservedAndGivenBack(t *testing.T) {
	clitest.Home(t)
	at := "/machines/v1/m-1/reserved/prod/web"
	api := clitest.Answering("PUT "+at, `{"milliCPU": 4000}`, "DELETE "+at+" 204", "",
		"PUT /machines/v1/m-2/reserved/prod 409",
		`{"message": "machine south has 2 cpus free, 4 are asked for"}`)
	r := clitest.Run(t, api, "", "machine", "reserve", "m-1", "/prod/web", "--cpus", "4", "--mem", "8192")
	clitest.Same(t, "output", r.Out, "m-1 keeps 4 cpus, 8 GiB mem for /prod/web\n")
	api.Asked(t, "reserve", fmt.Sprintf(`PUT %s {"milliCPU":4000,"mem":%d}`, at, 8*gi))
	r = clitest.Run(t, api, "", "machine", "reserve", "m-1", "prod/web", "--none")
	clitest.Same(t, "output", r.Out, "m-1 keeps nothing for prod/web\n")
	api.Asked(t, "--none", "DELETE "+at)

	for what, tc := range map[string]struct {
		args string
		code int
		says string
	}{
		"no amount":      {"m-1 /prod", exit.BadUsage, "give --cpus, --mem, --disk or --gpus, or --none"},
		"zero":           {"m-1 /prod --cpus 0", exit.BadUsage, "nothing is to be kept"},
		"no number":      {"m-1 /prod --cpus many", exit.BadUsage, "many"},
		"without a role": {"m-1", exit.BadUsage, "reserve ID ROLE"},
		"more than free": {"m-2 /prod --cpus 4", exit.Conflict, "2 cpus free, 4 are asked for"},
	} {
		clitest.Run(t, api, "", append([]string{"machine", "reserve"}, strings.Fields(tc.args)...)...).Says(t, what,
			tc.code, tc.says)
	}
}

func TestAMachineIsRemovedWhenThatWasMeant(t *testing.T) {
	clitest.Home(t)
	gone := `{"machine": "m-1", "hostname": "north", "groups": ["a", "b"],
		"lost": [{"framework": "kubernetes", "name": "demo.control-plane"}]}`
	api := clitest.Answering("GET /machines/v1/m-1", connected, "DELETE /machines/v1/m-1", gone,
		"DELETE /machines/v1/m-2 409", `{"message": "machine south is connected, runs 2 instances and keeps volumes of 0"}`)
	r := clitest.Run(t, api, "", "machine", "remove", "m-1", "--yes")
	clitest.Same(t, "output", r.Out, "m-1 (north) is removed, 2 instances ended\nlost: the volumes of "+
		"demo.control-plane (kubernetes)\n")
	api.Asked(t, "remove --yes", "DELETE /machines/v1/m-1")
	clitest.Run(t, api, "", "machine", "remove", "m-1", "--yes", "--force").Says(t, "with force", 0)
	api.Asked(t, "with force", "DELETE /machines/v1/m-1?force=true")

	clitest.Run(t, api, "", "machine", "remove", "m-1").
		Says(t, "nobody to ask", exit.BadUsage, "Remove machine m-1 (north, connected), which runs 3 instances?", "--yes")
	api.Asked(t, "nobody to ask", "GET /machines/v1/m-1")
	clitest.Run(t, api, "", "machine", "remove", "m-9").Says(t, "none", exit.NotFound, "m-9")
	api.Asked(t, "none", "GET /machines/v1/m-9")
	clitest.Run(t, api, "", "machine", "remove", "m-2", "-y").Says(t, "in use", exit.Conflict, "runs 2 instances")
	clitest.Run(t, clitest.Answers(200, "gone"), "", "machine", "remove", "m-1", "-y").
		Says(t, "no answer", exit.Failed, "not what this version expects")
}

func TestThePoolIsShownAndGrows(t *testing.T) {
	clitest.Home(t)
	api := clitest.Answering("GET /net/v1/pool", `{"pool": "10.130.0.0/16", "subnets": 256, "used": 254}`,
		"PUT /net/v1/pool", `{"pool": "10.128.0.0/12", "subnets": 4096, "used": 254}`)
	r := clitest.Run(t, api, "", "machine", "pool")
	clitest.Same(t, "pool", r.Out, "pool     10.130.0.0/16\nsubnets  256\nused     254\n")
	api.Asked(t, "pool", "GET /net/v1/pool")
	r = clitest.Run(t, api, "", "machine", "pool", "10.128.0.0/12")
	clitest.Same(t, "pool PREFIX", r.Out, "pool     10.128.0.0/12\nsubnets  4096\nused     254\n")
	api.Asked(t, "pool PREFIX", `PUT /net/v1/pool {"pool":"10.128.0.0/12"}`)

	for what, text := range map[string]string{"no prefix": "10.128.0.0", "a word": "larger", "IPv6": "fd00::/8",
		"too long": "10.0.0.0/33"} {
		clitest.Run(t, api, "", "machine", "pool", text).Says(t, what, exit.BadUsage, text, "10.128.0.0/12",
			"marina machine pool --help")
	}
	api.Asked(t, "what is no pool")
	clitest.Run(t, api, "", "machine", "pool", "10.0.0.0/8", "10.0.0.0/9").Says(t, "two", exit.BadUsage,
		"expected `marina machine pool [PREFIX]", "got 2 arguments")
	for what, tc := range map[string]struct {
		status int
		body   string
		code   int
		says   string
	}{
		"smaller": {400, `{"message": "pool 10.130.1.0/24: it must have all of 10.130.0.0/16"}`, exit.Failed,
			"it must have all of 10.130.0.0/16"},
		"not allowed": {403, `{"message": "ann may not update marina:networks:pool"}`, exit.Denied, "ann may not"},
		"no leader":   {503, `{"message": "no leader"}`, exit.Unreachable, "marina status"},
		"no answer":   {200, `[]`, exit.Failed, "not what this version expects"},
	} {
		clitest.Run(t, clitest.Answers(tc.status, tc.body), "", "machine", "pool", "10.130.1.0/24").Says(t, what,
			tc.code, tc.says)
	}
}

func TestMachinesAnswersComeAsTheyAreWithJSON(t *testing.T) {
	clitest.Home(t)
	for _, args := range []string{"list", "show m-1", "reserve m-1 /prod --cpus 1", "remove m-1 --yes", "pool",
		"pool 10.0.0.0/8"} {
		r := clitest.Run(t, clitest.Answers(200, `{"machines":[],"newer":{"than":"us"}}`), "",
			append(append([]string{"machine"}, strings.Fields(args)...), "--json")...)
		var got map[string]any
		if err := json.Unmarshal([]byte(r.Out), &got); r.Code != 0 || err != nil || len(got) != 2 {
			t.Errorf("machine %s --json: exit %d, printed %q (%v), want the answer", args, r.Code, r.Out, err)
		}
	}
}
