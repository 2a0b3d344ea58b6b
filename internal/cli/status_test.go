package cli

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// datacenterOf answers what marina status asks, with these units.
func datacenterOf(units string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/system/health/v1":
			io.WriteString(w, `{"units":[`+units+`]}`)
		case marathon + "/apps":
			io.WriteString(w, `{"apps":[{"id":"/x","instances":2,"tasksRunning":1}]}`)
		case "/machines/v1":
			io.WriteString(w, `{"machines":[{"id":"m-1","used":{"milliCPU":1000,"mem":1073741824},"total":{"milliCPU":4000,"mem":8589934592}}]}`)
		}
	})
}

const wellUnits = `{"id":"marina-store.service","name":"store","health":0,"output":""},{"id":"marina-agent.service","name":"agent","health":0,"output":""}`

func TestStatusOfADatacenterThatIsWell(t *testing.T) {
	code, out, e := marina(t, datacenterOf(wellUnits), "status")
	_, out, _ = strings.Cut(out, "\n") // its address
	same(t, "status", out+e, `UNIT   STATE  SAYS
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
	code, out, e := marina(t, datacenterOf(wellUnits+
		`,{"id":"marina-services.service","name":"services","health":1,"output":"`+long+`\ndeployment 4b2: its app's version is gone; marina deployment rollback 4b2 --force\u001b[2J\nand 3 more"}`+
		`,{"id":"marina-kubernetes.service","name":"kubernetes","health":1,"output":"cluster blue: deciding it panicked"}`), "status")
	_, out, _ = strings.Cut(out, "\n")
	same(t, "status", out, `UNIT        STATE     SAYS
store       well      -
agent       well      -
services    NOT WELL  see below
kubernetes  NOT WELL  cluster blue: deciding it panicked

services: `+long+`
services: deployment 4b2: its app's version is gone; marina deployment rollback 4b2 --force`+"\uFFFD"+`[2J
services: and 3 more

1 machines, 1 services, 1 of 2 tasks running; promised 1 cpus, 1 GiB mem of 4 cpus, 8 GiB mem
`)
	if code != ExitFailed || !strings.Contains(e, "2 parts of the datacenter are not well") {
		t.Errorf("exit %d, error %q, want %d and how many parts are not well", code, e, ExitFailed)
	}
}

func TestTheTableOfUnitsFitsATerminal(t *testing.T) {
	unit := func(name, says string) string {
		return `,{"id":"marina-` + name + `.service","name":"` + name + `","health":1,"output":"` + says + `"}`
	}
	_, out, _ := marina(t, datacenterOf(wellUnits+unit("kubernetes", strings.Repeat("x", maxSays))+unit("store", strings.Repeat("y", maxSays+1))), "status")
	_, table, _ := strings.Cut(out, "\n")
	table, below, _ := strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		if n := len([]rune(strings.TrimSpace(line))); n > columns {
			t.Errorf("line of %d characters: %s", n, line)
		}
	}
	if !strings.Contains(table, strings.Repeat("x", maxSays)) || !strings.HasPrefix(below, "store: y") {
		t.Errorf("table %q and below it %q, want what fits in the one and what does not in the other", table, below)
	}
}
