package datacenter_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
	"github.com/marinaos/marina/internal/cli/output"
)

// marina runs a command line against an API, in a home of its own.
func marina(t *testing.T, h http.Handler, args ...string) (code int, out, errOut string) {
	t.Helper()
	clitest.Home(t)
	r := clitest.Run(t, h, "", args...)
	return r.Code, r.Out, r.Err
}

// datacenterOf answers what marina status asks, with these units.
func datacenterOf(units string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/system/health/v1":
			io.WriteString(w, `{"units":[`+units+`]}`)
		case marathon.API + "/apps":
			io.WriteString(w, `{"apps":[{"id":"/x","instances":2,"tasksRunning":1}]}`)
		case "/machines/v1":
			io.WriteString(w, `{"machines":[{"id":"m-1","used":{"milliCPU":1000,"mem":1073741824},"total":{"milliCPU":4000,"mem":8589934592}}]}`)
		}
	})
}

func TestStatusOfADatacenterThatIsWell(t *testing.T) {
	code, out, e := marina(t, datacenterOf(clitest.WellUnits), "status")
	_, out, _ = strings.Cut(out, "\n") // its address
	clitest.Same(t, "status", out+e, `UNIT   STATE  SAYS
store  well   -
agent  well   -

1 machines, 1 services, 1 of 2 tasks running; promised 1 cpus, 1 GiB mem of 4 cpus, 8 GiB mem
`)
	if code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
}

func TestAlarmsStandBelowTheTableOneALineWithWhatToDo(t *testing.T) {
	long := "app /" + strings.Repeat("team/", 30) + "web: its row cannot be read: unexpected end of JSON input; marina app update FILE"
	code, out, e := marina(t, datacenterOf(clitest.WellUnits+
		`,{"id":"marina-services.service","name":"services","health":1,"output":"`+long+`\ndeployment 4b2: its app's version is gone; marina deployment rollback 4b2 --force\u001b[2J\nand 3 more"}`+
		`,{"id":"marina-kubernetes.service","name":"kubernetes","health":1,"output":"cluster blue: deciding it panicked"}`), "status")
	_, out, _ = strings.Cut(out, "\n")
	clitest.Same(t, "status", out, `UNIT        STATE     SAYS
store       well      -
agent       well      -
services    NOT WELL  see below
kubernetes  NOT WELL  cluster blue: deciding it panicked

services: `+long+`
services: deployment 4b2: its app's version is gone; marina deployment rollback 4b2 --force`+"\uFFFD"+`[2J
services: and 3 more

1 machines, 1 services, 1 of 2 tasks running; promised 1 cpus, 1 GiB mem of 4 cpus, 8 GiB mem
`)
	if code != exit.Failed || !strings.Contains(e, "2 parts of the datacenter are not well") {
		t.Errorf("exit %d, error %q, want %d and how many parts are not well", code, e, exit.Failed)
	}
}

func TestTheTableOfUnitsFitsATerminal(t *testing.T) {
	unit := func(name, says string) string {
		return `,{"id":"marina-` + name + `.service","name":"` + name + `","health":1,"output":"` + says + `"}`
	}
	_, out, _ := marina(t, datacenterOf(clitest.WellUnits+unit("kubernetes", strings.Repeat("x", 52))+unit("store", strings.Repeat("y", 53))), "status")
	_, table, _ := strings.Cut(out, "\n")
	table, below, _ := strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		if n := len([]rune(strings.TrimSpace(line))); n > output.Columns {
			t.Errorf("line of %d characters: %s", n, line)
		}
	}
	if !strings.Contains(table, strings.Repeat("x", 52)) || !strings.HasPrefix(below, "store: y") {
		t.Errorf("table %q and below it %q, want what fits in the one and what does not in the other", table, below)
	}
}
