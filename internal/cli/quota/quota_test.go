package quota_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/kernel"
)

const mi = int64(kernel.MiB)

// teams is what a datacenter with quotas answers: of the teams one waits, has a guarantee that it does not use all of,
// and something on loan; the other's name begins like a part of the first one's.
func teams() string {
	limit, guarantee := kernel.NoLimit, kernel.Resources{MilliCPU: 2000}
	limit.MilliCPU, limit.Mem = 8000, 16*1024*mi
	all := []kernel.QuotaView{
		{Role: "/", Share: 0.251, Weight: 1, Used: kernel.Resources{MilliCPU: 1500, Mem: 1024 * mi}},
		{Role: "/prod", Limit: &limit, Guarantee: &guarantee, Weight: 2, Share: 0.125, Used: kernel.Resources{MilliCPU: 500},
			Held: kernel.Resources{MilliCPU: 1500}, Preemptible: kernel.Resources{MilliCPU: 250}, Waiting: 3,
			Asks: kernel.Resources{MilliCPU: 4000}, Why: "0 of 2 machines fit: 2 have less than 4 cpus free"},
		{Role: "/production", Limit: new(kernel.NoLimit), Weight: 1},
		{Role: "/prod/web", Weight: 0.5},
	}
	b, err := json.Marshal(map[string]any{"quotas": all})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestQuotasTellWhoHasUsesAndWaitsForWhat(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("GET /quota/v1", teams())
	head := "ROLE         GUARANTEE  LIMIT                USED               SHARE    WAITS\n"
	whole := head +
		"/            none       none                 1.5 cpus, 1 GiB mem  26%      -\n" +
		"/prod        2 cpus     8 cpus, 16 GiB mem   0.5 cpus           13% x2   3\n"
	for _, args := range []string{"quota", "quota show"} {
		r := clitest.Run(t, datacenter, "", strings.Fields(args)...)
		if squeezed(r.Out) != squeezed(whole+"/production none no limit nothing 0% -\n/prod/web none none nothing 0% x0.5 "+
			"-\n"+
			"/prod: 1.5 cpus of its guarantee is not used and held for it\n"+
			"/prod: 0.25 cpus of what it uses is on loan, by work with a priority below zero\n"+
			"/prod: 3 waiting for 4 cpus: 0 of 2 machines fit: 2 have less than 4 cpus free\n") {
			t.Errorf("%s:\n%s", args, r.Out)
		}
	}
	r := clitest.Run(t, datacenter, "", "quota", "show", "/prod/")
	if !strings.Contains(r.Out, "\n/prod ") || !strings.Contains(r.Out, "\n/prod/web ") ||
		strings.Contains(r.Out, "/production") ||
		strings.Contains(r.Out, "\n/ ") {
		t.Errorf("show /prod/:\n%s, want the role and those below it, and no other", r.Out)
	}
	clitest.Run(t, datacenter, "", "quota", "show", "/none").
		Says(t, "a role without a quota", exit.NotFound, "role /none has no quota and uses nothing", "marina quota set /none")
	r = clitest.Run(t, clitest.Answers(200, `{"quotas": []}`), "", "quota")
	clitest.Same(t, "nothing", r.Out, "No quotas, and nothing is used. Set one: marina quota set /team --cpus 4 --mem "+
		"8192\n")
	clitest.Run(t, datacenter, "", "quota", "raise").Says(t, "a verb that is none", exit.BadUsage,
		`marina quota has no verb "raise"`)
	clitest.Run(t, datacenter, "", "quota", "show", "/a", "/b").Says(t, "two roles", exit.BadUsage, "show [ROLE]")
	if r := clitest.Run(t, datacenter, "", "quota", "show", "/none", "--json"); r.Code != 0 ||
		!strings.Contains(r.Out, `"quotas"`) {
		t.Errorf("--json: exit %d, printed %q, want the whole answer", r.Code, r.Out)
	}
}

func squeezed(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n")
}

func TestWhatIsNotSaidOfAQuotaStays(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("GET /quota/v1", teams(), "PUT /quota/v1/prod", `{}`, "PUT /quota/v1/new", `{}`,
		"PUT /quota/v1/", `{}`,
		"DELETE /quota/v1/prod 204", "")
	body := func(cpus, mem, guaranteed, held int64, weight float64, force bool) string {
		return fmt.Sprintf(`{"force":%v,"guarantee":%s,"limit":%s,"weight":%v}`, force,
			encoded(kernel.Resources{MilliCPU: guaranteed, Mem: held}),
			encoded(kernel.Resources{MilliCPU: cpus, Mem: mem, Disk: kernel.Unlimited, GPUs: kernel.Unlimited}), weight)
	}
	for _, tc := range []struct{ args, path, body, says string }{
		{"/prod --cpus 4", "/prod", body(4000, 16*1024*mi, 2000, 0, 2, false),
			"/prod may use 4 cpus, 16 GiB mem, 2 cpus is held for it"},
		{"prod --mem none", "/prod", body(8000, kernel.Unlimited, 2000, 0, 2, false),
			"prod may use 8 cpus, 2 cpus is held for it"},
		{"/prod --guarantee mem=512 --force", "/prod", body(8000, 16*1024*mi, 2000, 512*mi, 2, true),
			"/prod may use 8 cpus, 16 GiB mem, 2 cpus, 512 MiB mem is held for it"},
		{"/prod --guarantee none --weight 0.5", "/prod", body(8000, 16*1024*mi, 0, 0, 0.5, false),
			"/prod may use 8 cpus, 16 GiB mem"},
		{"/new --weight 3", "/new", body(kernel.Unlimited, kernel.Unlimited, 0, 0, 3, false), "/new may use no limit"},
	} {
		r := clitest.Run(t, datacenter, "", append([]string{"quota", "set"}, strings.Fields(tc.args)...)...)
		clitest.Same(t, "set "+tc.args, r.Out, tc.says+"\n")
		datacenter.Asked(t, "set "+tc.args, "GET /quota/v1", "PUT /quota/v1"+tc.path+" "+tc.body)
	}
	r := clitest.Run(t, datacenter, "", "quota", "set", "/prod", "--none")
	clitest.Same(t, "--none", r.Out, "removed the quota of /prod\n")
	datacenter.Asked(t, "--none", "DELETE /quota/v1/prod")
	r = clitest.Run(t, datacenter, "", "quota", "set", "/prod", "--cpus", "1", "--json")
	clitest.Same(t, "--json", r.Out, "{}\n")
}

func encoded(r kernel.Resources) string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestAQuotaThatCannotBeSaysWhatToChange(t *testing.T) {
	clitest.Home(t)
	datacenter := clitest.Answering("GET /quota/v1", teams(), "PUT /quota/v1/prod 409",
		`{"message": "guarantee 100 cpus: all machines have 12 cpus"}`)
	for what, tc := range map[string]struct {
		args string
		code int
		says string
	}{
		"no number": {"/prod --cpus many", exit.BadUsage, `"many"`},
		"a guarantee without an =": {"/prod --guarantee 4", exit.BadUsage,
			`guarantee "4": expected cpus=2,mem=4096, or none`},
		"a guarantee of what":       {"/prod --guarantee gold=4", exit.BadUsage, "gold"},
		"a guarantee without bound": {"/prod --guarantee cpus=none", exit.BadUsage, "none"},
		"no role":                   {"--cpus 4", exit.BadUsage, "set ROLE"},
		"no weight":                 {"/prod --weight heavy", exit.BadUsage, "heavy"},
		"more than there is":        {"/prod --guarantee cpus=100", exit.Conflict, "all machines have 12 cpus"},
		"one that has none":         {"/none --none", exit.NotFound, "/quota/v1/none"},
	} {
		clitest.Run(t, datacenter, "", append([]string{"quota", "set"}, strings.Fields(tc.args)...)...).Says(t, what,
			tc.code, tc.says)
	}
	for _, args := range []string{"quota", "quota set /prod --cpus 4", "quota set /prod --none"} {
		clitest.Run(t, clitest.Answers(403, `{"message": "bob may not do this"}`), "", strings.Fields(args)...).
			Says(t, args, exit.Denied, "bob may not")
		clitest.Run(t, clitest.Answers(503, `{"message": "no leader"}`), "", strings.Fields(args)...).
			Says(t, args, exit.Unreachable, "no leader")
	}
}
