package audit_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

// record is one as the API has it, two hours old.
func record(fields string) string {
	return fmt.Sprintf(`{"time": %q, %s}`, time.Now().Add(-2*time.Hour).Format(time.RFC3339), fields)
}

func TestRecordsTellWhoDidWhatAndHowItEnded(t *testing.T) {
	clitest.Home(t)
	for what, tc := range map[string]struct{ fields, want string }{
		"a change": {`"who": "ann", "from": "192.0.2.9", "action": "PUT", "path": "/service/marathon/v2/apps/web", "status": 200,
			"outcome": "done"`, "2h ann 192.0.2.9 done PUT /v2/apps/web"},
		"a refusal": {`"who": "bob", "from": "192.0.2.8", "action": "DELETE", "path": "/quota/v1/prod", "status": 403, "outcome": "refused"`,
			"2h bob 192.0.2.8 refused 403 DELETE /quota/v1/prod"},
		"a failure": {`"who": "ann", "from": "192.0.2.9", "action": "POST", "path": "/v2/apps", "status": 422, "outcome": "failed"`,
			"2h ann 192.0.2.9 failed 422 POST /v2/apps"},
		"one whose asker left": {`"who": "ann", "from": "192.0.2.9", "action": "POST", "path": "/v2/apps", "outcome": "failed"`,
			"2h ann 192.0.2.9 failed POST /v2/apps"},
		"a stranger": {`"from": "203.0.113.5", "action": "POST", "path": "/x", "status": 401, "outcome": "refused",
			"notes": {"not recorded before": "212"}`, "2h a stranger 203.0.113.5 refused 401 POST /x (not recorded before 212)"},
		"a login": {`"from": "192.0.2.9", "action": "POST", "path": "/acs/api/v1/auth/login", "status": 200, "outcome": "done",
			"notes": {"uid": "ann"}`, "2h ann 192.0.2.9 done POST /acs/api/v1/auth/login"},
		"notes in order": {`"who": "ann", "from": "192.0.2.9", "action": "PUT", "path": "/users/v1/bob", "status": 200, "outcome": "done",
			"notes": {"uid": "bob", "also": "x"}`, "2h ann 192.0.2.9 done PUT /users/v1/bob (also x, uid bob)"},
		"the begin of a session": {`"who": "ann", "from": "192.0.2.9", "action": "POST", "path": "/tasks/v1/x/exec", "outcome": "begun"`,
			"2h ann 192.0.2.9 begun POST /tasks/v1/x/exec"},
		"its end": {`"who": "ann", "from": "192.0.2.9", "action": "POST", "path": "/tasks/v1/x/exec", "phase": "ended", "status": 200,
			"outcome": "done", "duration": 63400000000`, "2h ann 192.0.2.9 ended 1m3s POST /tasks/v1/x/exec"},
		"tricks": {`"who": "a\u001b[2J\nb", "from": "192.0.2.9", "action": "PUT", "path": "/x", "status": 200, "outcome": "done"`,
			"2h a\ufffd[2J b 192.0.2.9 done PUT /x"},
	} {
		r := clitest.Run(t, clitest.Answers(200, `{"records": [`+record(tc.fields)+`]}`), "", "audit")
		head, row, _ := strings.Cut(r.Out, "\n")
		if got := strings.Join(strings.Fields(row), " "); r.Code != 0 || got != tc.want ||
			strings.Join(strings.Fields(head), " ") != "AGO WHO FROM OUTCOME WHAT" {
			t.Errorf("%s: exit %d %s, printed %q, want %q", what, r.Code, r.Err, r.Out, tc.want)
		}
	}
}

func TestALongPathIsShortenedAndNothingElse(t *testing.T) {
	clitest.Home(t)
	long := `"who": "ann", "from": "192.0.2.9", "action": "PUT", "path": "/v2/apps/` + strings.Repeat("a", 200) +
		`", "status": 200, "outcome": "done"`
	r := clitest.Run(t, clitest.Answers(200, `{"records": [`+record(long)+`]}`), "", "audit")
	for line := range strings.Lines(r.Out) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
	if !strings.Contains(r.Out, "192.0.2.9  done") {
		t.Errorf("printed %q, want who, whence and outcome whole", r.Out)
	}
}

func TestWhatIsAskedForIsTheQuery(t *testing.T) {
	clitest.Home(t)
	for args, want := range map[string]url.Values{
		"":                       {"limit": {"50"}},
		"--who ann --since 7d":   {"limit": {"50"}, "who": {"ann"}, "since": {"7d"}},
		"--path /v2/apps?x=1&y":  {"limit": {"50"}, "path": {"/v2/apps?x=1&y"}},
		"--outcome refused":      {"limit": {"50"}, "outcome": {"refused"}},
		"--limit 1000 --who=a+b": {"limit": {"1000"}, "who": {"a+b"}},
	} {
		datacenter := clitest.Answering("GET /audit/v1", `{"records": []}`)
		r := clitest.Run(t, datacenter, "", append([]string{"audit"}, strings.Fields(args)...)...)
		clitest.Same(t, "audit "+args, r.Out, "No such records.\n")
		datacenter.Asked(t, "audit "+args, "GET /audit/v1?"+want.Encode())
	}
}

func TestTheAuditLogSaysWhyItCannotBeRead(t *testing.T) {
	clitest.Home(t)
	for what, tc := range map[string]struct {
		status int
		body   string
		code   int
		says   string
	}{
		"not allowed": {403, `{"message": "bob may not read the audit log"}`, exit.Denied, "bob may not read"},
		"bad time":    {400, `{"message": "since \"soon\": expected 90m, 7d or a time"}`, exit.Failed, `since "soon"`},
		"no answer":   {200, `{"records": 7}`, exit.Failed, "not what this version expects"},
	} {
		clitest.Run(t, clitest.Answers(tc.status, tc.body), "", "audit", "--since", "soon").Says(t, what, tc.code, tc.says)
	}
	clitest.Run(t, clitest.Answers(200, `{}`), "", "audit", "list").Says(t, "a verb", exit.BadUsage, "got 1 arguments")
	clitest.Run(t, clitest.Answers(200, `{}`), "", "audit", "--limit", "all").Says(t, "no number", exit.BadUsage, "all")
	r := clitest.Run(t, clitest.Answers(200, `{"records": [`+record(`"number": 7`)+`]}`), "", "audit", "--json")
	if r.Code != 0 || !strings.Contains(r.Out, `"number": 7`) {
		t.Errorf("--json: exit %d, printed %q, want the answer", r.Code, r.Out)
	}
}
