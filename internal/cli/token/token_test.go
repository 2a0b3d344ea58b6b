package token_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
)

const api = "/acs/api/v1/tokens"

// soon is a time as the API writes it, and as a person reads it.
func soon(t *testing.T) (sent, read string) {
	t.Helper()
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	return at.UTC().Format(time.RFC3339), at.Local().Format(time.DateTime)
}

func TestATokenAloneIsOnStandardOutput(t *testing.T) {
	clitest.Home(t)
	sent, read := soon(t)
	datacenter := clitest.Answering("POST "+api, fmt.Sprintf(`{"token": "secret", "id": "t2", "expires": %q}`, sent))
	r := clitest.Run(t, datacenter, "", "token", "create")
	clitest.Same(t, "output", r.Out, "secret\n")
	r.Says(t, "create", exit.OK, "token t2, good until "+read, "Authorization: token=$TOKEN")
	datacenter.Asked(t, "create", "POST "+api+` {"description":"","ttlSeconds":432000}`)

	r = clitest.Run(t, datacenter, "", "token", "create", "--ttl", "90m", "--description", "a laptop", "--quiet")
	clitest.Same(t, "create --quiet", r.Out+r.Err, "secret\n")
	datacenter.Asked(t, "create --quiet", "POST "+api+` {"description":"a laptop","ttlSeconds":5400}`)
	r = clitest.Run(t, datacenter, "", "token", "create", "--json")
	if !strings.Contains(r.Out, `"token": "secret"`) || r.Err != "" {
		t.Errorf("create --json: %q, %q, want the answer alone", r.Out, r.Err)
	}

	clitest.Run(t, datacenter, "", "token", "create", "--ttl", "long").Says(t, "no duration", exit.BadUsage, "long")
	clitest.Run(t, datacenter, "", "token", "create", "laptop").Says(t, "an argument", exit.BadUsage, "got 1 arguments")
	clitest.Run(t, clitest.Answers(400, `{"message": "a token is good for at most 365 days"}`), "", "token", "create",
		"--ttl", "9000h").
		Says(t, "too long", exit.Failed, "at most 365 days")
	clitest.Run(t, clitest.Answers(200, "secret"), "", "token", "create").Says(t, "no answer", exit.Failed,
		"not what this version expects")
}

func TestTokensAreListedAndRevoked(t *testing.T) {
	clitest.Home(t)
	sent, read := soon(t)
	issued := time.Now().Add(-73 * time.Hour).UTC().Format(time.RFC3339)
	datacenter := clitest.Answering("GET "+api, fmt.Sprintf(`{"array": [
		{"id": "t1", "uid": "root", "description": "laptop", "issued": %q, "expires": %q},
		{"id": "t2", "uid": "ann", "issued": %q, "expires": %q}]}`, issued, sent, issued, sent),
		"DELETE "+api+"/t1 204", "", "DELETE "+api+"/t%2F..%2Fx 204", "")
	r := clitest.Run(t, datacenter, "", "token", "list")
	clitest.Same(t, "list", r.Out, ""+
		"ID  USER  ISSUED  EXPIRES              DESCRIPTION\n"+
		"t1  root  3d ago  "+read+"  laptop\n"+
		"t2  ann   3d ago  "+read+"  -\n")
	datacenter.Asked(t, "list", "GET "+api)
	r = clitest.Run(t, clitest.Answers(200, `{"array": []}`), "", "token", "list")
	clitest.Same(t, "list of nothing", r.Out, "ID  USER  ISSUED  EXPIRES  DESCRIPTION\n")
	if r := clitest.Run(t, datacenter, "", "token", "list", "--json"); r.Code != 0 ||
		!strings.Contains(r.Out, `"uid": "ann"`) {
		t.Errorf("list --json: exit %d, printed %q", r.Code, r.Out)
	}
	datacenter.Asked(t, "list --json", "GET "+api)

	r = clitest.Run(t, datacenter, "", "token", "revoke", "t1")
	clitest.Same(t, "revoke", r.Out, "revoked t1\n")
	datacenter.Asked(t, "revoke", "DELETE "+api+"/t1")
	clitest.Run(t, datacenter, "", "token", "revoke", "t/../x").Says(t, "an id that looks like a path", exit.OK)
	datacenter.Asked(t, "an id that looks like a path", "DELETE "+api+"/t%2F..%2Fx")
	clitest.Run(t, datacenter, "", "token", "revoke", "t9").Says(t, "none", exit.NotFound, "there is no "+api+"/t9")
	clitest.Run(t, datacenter, "", "token", "revoke").Says(t, "no id", exit.BadUsage, "revoke ID")
	for _, verb := range []string{"create", "list", "revoke t1"} {
		clitest.Run(t, clitest.Answers(401, `{"message": "this token has ended"}`), "",
			append([]string{"token"}, strings.Fields(verb)...)...).
			Says(t, verb, exit.Denied, "this token has ended", "marina login")
	}
}

func TestTheCAIsPrintedAsItWasGiven(t *testing.T) {
	clitest.Home(t)
	r := clitest.Run(t, clitest.Answers(500, ""), "", "token", "ca") // asks nobody
	clitest.Same(t, "without a CA", r.Out+r.Err, "")
	r.Says(t, "without a CA", exit.OK)
	clitest.Run(t, clitest.Answers(500, ""), "", "token", "ca", "--ca", "/does/not/exist").
		Says(t, "a file that is none", exit.BadUsage, "/does/not/exist")
}
