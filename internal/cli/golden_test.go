package cli_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/marinaos/marina/internal/cli"
	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/settings"
)

// The golden files hold the whole command as people and scripts see it: help, flags, completions, what each verb asks
// the API, what it prints, and how it ends. go test ./internal/cli -run Golden -update writes them anew; read the
// difference.
var update = flag.Bool("update", false, "write the golden files anew")

// session is a person at a terminal that is none, with a home of their own and a datacenter that always answers the
// same.
type session struct {
	t          *testing.T
	api        *clitest.Recorded
	home       string
	state      string
	transcript strings.Builder
}

// The golden files show times of one zone, wherever they are compared. It is set before any server runs, which reads it.
func init() { time.Local = time.UTC }

func newSession(t *testing.T) *session {
	s := &session{t: t, api: clitest.Record(t), home: clitest.Home(t), state: t.TempDir()}
	t.Setenv("COLUMNS", "")
	t.Chdir(s.home)
	for name, text := range map[string]string{"app.json": `{"id":"/new","cmd":"sleep 1"}`, "noid.json": `{"cmd":"x"}`,
		"bad.json": `{`, "image.tar": strings.Repeat("x", 3000),
		"cluster.yaml": "name: demo\nversion: 1.37\nnodes: {count: 1}\n"} {
		if err := os.WriteFile(filepath.Join(s.home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// programs stand for the datacenter's own: they tell what they were given.
func (s *session) programs(errOut io.Writer) cli.Programs {
	told := func(what string) func(context.Context, settings.Datacenter) error {
		return func(_ context.Context, set settings.Datacenter) error {
			fmt.Fprintf(errOut, "%s %+v\n", what, set)
			return nil
		}
	}
	ends := func(what string) func(context.Context, settings.Datacenter, io.Writer) error {
		return func(ctx context.Context, set settings.Datacenter, w io.Writer) error {
			fmt.Fprintln(w, "progress of", what)
			return told(what)(ctx, set)
		}
	}
	return cli.Programs{Daemon: told("daemon"), Agent: told("agent"), Down: ends("down"), Clean: ends("clean"),
		Build: func() string { return "build" }, Running: func(settings.Datacenter) bool { return false },
		Preflight: func(context.Context, settings.Datacenter) []kernel.Finding {
			return []kernel.Finding{{Severity: kernel.Good, What: "kernel 6.1"},
				{Severity: kernel.Warning, What: "few keys", Do: "sysctl"},
				{Severity: kernel.Fatal, What: "no root", Do: "sudo marina up"}}
		}}
}

var masks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "(date)"},
	{regexp.MustCompile(`20[0-9-]{8}T[0-9:.]+Z`), "(time)"},
	{regexp.MustCompile(`d1[(]time[)]`), "d1"},
}

// run runs one command line and writes what came of it.
func (s *session) run(in string, args ...string) (code int) {
	var out, errOut bytes.Buffer
	full := append([]string{"--url", s.api.URL, "--token", "t", "--state", s.state}, args...)
	if len(args) > 0 && args[0] == "__complete" {
		full = append([]string{"__complete", "--url", s.api.URL, "--token", "t", "--state", s.state}, args[1:]...)
	}
	code = clitest.RunOn(s.t, s.programs(&errOut), strings.NewReader(in), &out, &errOut, full...)
	text := fmt.Sprintf("$ marina %s\n", quoted(args))
	for _, line := range slices.Compact(s.api.Requests()) { // how often a verb that waits looks is a matter of time
		text += "> " + line + "\n"
	}
	text += prefixed("  ", out.String()) + prefixed("! ", errOut.String()) + fmt.Sprintf("= %d\n\n", code)
	text = strings.NewReplacer(s.api.URL, "https://API", s.home, "~", s.state, "STATE").Replace(text)
	for _, m := range masks {
		text = m.re.ReplaceAllString(text, m.to)
	}
	s.transcript.WriteString(text)
	return code
}

func quoted(args []string) string {
	var out []string
	for _, a := range args {
		if a == "" || strings.ContainsAny(a, " \n\"{") {
			a = "'" + a + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

func prefixed(mark, text string) string {
	if text == "" {
		return ""
	}
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimRight(mark+strings.TrimSuffix(line, "\n"), " ") + "\n")
	}
	return out.String()
}

// same compares the transcript with a golden file.
func (s *session) same(file string) {
	s.t.Helper()
	path := s.golden(file)
	if *update {
		if err := os.WriteFile(path, []byte(s.transcript.String()), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	clitest.Same(s.t, file, s.transcript.String(), string(want))
}

var testdata, _ = filepath.Abs("testdata")

func (s *session) golden(file string) string { return filepath.Join(testdata, file) }

// commands are all there are, parents first, each as its words.
func commands() (all []*cobra.Command) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		all = append(all, c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	root := cli.New(&command.Env{}, cli.Programs{})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	walk(root)
	return all
}

// words are a command's, without the program's name.
func words(c *cobra.Command) []string { return strings.Fields(c.CommandPath())[1:] }

func TestGoldenHelpAndFlags(t *testing.T) {
	s := newSession(t)
	for _, c := range commands() {
		s.run("", append(words(c), "--help")...)
		for _, set := range []*pflag.FlagSet{c.LocalFlags(), c.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) {
				fmt.Fprintf(&s.transcript, "# %s --%s %q %s %q hidden=%v\n", c.CommandPath(), f.Name, f.Shorthand, f.Value.Type(),
					f.DefValue, f.Hidden)
			})
		}
	}
	s.run("", []string{}...)
	s.run("", "--version")
	s.run("", "help", "app", "scale")
	s.same("help.golden")
}

func TestGoldenCompletions(t *testing.T) {
	s := newSession(t)
	for _, c := range commands() {
		if len(c.Commands()) == 0 {
			s.run("", slices.Concat([]string{"__complete"}, words(c), []string{""})...)
			s.run("", slices.Concat([]string{"__complete"}, words(c), []string{"demo", ""})...)
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if _, ok := c.GetFlagCompletionFunc(f.Name); ok {
				s.run("", slices.Concat([]string{"__complete"}, words(c), []string{"--" + f.Name, ""})...)
			}
		})
	}
	s.run("", "__complete", "image", "load", "--cluster", "a,d")
	s.run("", "__complete", "")
	s.run("", "__complete", "app", "")
	s.run("", "__complete", "cluster", "create", "--")
	s.same("complete.golden")
}

func TestGoldenErrors(t *testing.T) {
	s := newSession(t)
	for _, c := range commands() {
		w := words(c)
		if len(w) == 0 || w[0] == "completion" || w[0] == "help" {
			continue
		}
		for _, more := range [][]string{{"--no-such-flag"}, {"none", "b", "c", "d", "e", "f", "g"}, {"none"}, {}} {
			takes := w[0] == "up" || w[0] == "daemon" || w[0] == "agent" || w[0] == "down"
			if len(c.Commands()) == 0 && (len(more) > 0 || !takes) {
				s.run("", append(slices.Clone(w), more...)...)
			}
		}
		if len(c.Commands()) > 0 {
			s.run("", append(slices.Clone(w), "frobnicate")...)
		}
	}
	s.run("", "frobnicate")
	s.run("", "--ca", "none.pem", "app", "list")
	s.run("", "--ca", "app.json", "app", "list")
	s.run("", "cluster", "create", "demo", "--cpus", "many")
	s.same("errors.golden")
}

func TestGoldenVerbs(t *testing.T) {
	s := newSession(t)
	for line := range strings.Lines(verbs) {
		in, line, ok := strings.Cut(line, "<<")
		if !ok {
			in, line = "", in
		}
		args := strings.Fields(line)
		if len(args) == 0 {
			continue
		}
		if s.run(strings.TrimSpace(in), args...) == 0 && len(args) <= 3 && args[len(args)-1] != "down" {
			s.run(strings.TrimSpace(in), append(args, "--json")...)
		}
	}
	s.same("verbs.golden")
}

const verbs = `
app list
app show /prod/web
app show x
app show prod/web --address
app show prod/web --outside
app show x --address
app show x --outside
app add app.json
app add app.json --wait
app add app.json --wait -q
app add app.json --force --json --wait
app add noid.json
app add bad.json
app update app.json
app update app.json --force
app update /x instances=4 cmd=true
app update /prod/web env.B=3
app update /x novalue
app scale x 4
app scale x 4 --wait --force
app scale x -1
app scale /prod/web 2
app restart x
app restart x --wait
app remove x
app remove x --force --wait
app wait x
app wait x -q
deployment list
deployment follow d1
deployment follow d2
deployment rollback d2
deployment rollback d2 --force
deployment rollback d2 --wait
task list
task list x
task list --ids
task show x
task show x --pid
task show instance-2
task show instance
task show nothing
task log x
task log x --follow
task log x --stderr
task log x -n 2
task log x -n 2 -f
task log gone.instance-1._app.1
task exec x -- echo hello
hello << task exec x -- cat
task exec x -- false
task exec x -- nothing
task exec x -t -- true
cluster list
cluster list --names
cluster show demo
cluster show none
cluster create demo --nodes 1 --cpus 500m --mem 1Gi
cluster create demo --no-wait -q
cluster apply -f cluster.yaml
cluster apply -f cluster.yaml --wait
cluster scale demo 1
cluster scale demo 1 --wait
cluster resize demo --mem 1Gi
cluster resize demo
cluster wait demo
cluster delete demo
cluster delete demo --yes
cluster events demo
cluster kubeconfig demo
cluster kubeconfig demo --print
cluster kubeconfig demo --use
cluster kubeconfig demo --remove
cluster kubeconfig demo -o demo.kube
cluster versions
audit
audit --who ann --since 1d --limit 2
audit --path /v2/apps --outcome refused
image list
image load image.tar
image load image.tar --name other:1
image load image.tar --cluster demo
image load image.tar --cluster demo,none
image load none.tar
image remove nginx:1
machine list
machine show m-1
machine reserve m-1 /prod --cpus 2
machine reserve m-1 /prod --none
machine reserve m-1 /prod
machine reserve m-1 /prod --cpus x
machine remove m-1 --force --yes
machine remove m-1
machine pool
machine pool 10.128.0.0/12
machine pool --json
machine pool larger
quota
quota show
quota show /prod
quota show /none
quota set /prod --cpus 4 --guarantee mem=512
quota set /prod --cpus none --weight 3 --force
quota set /prod --none
quota set /prod --guarantee x
quota set /prod --cpus -2
status
token create
token create --ttl 1h --description laptop -q
token list
token revoke t1
token ca
login http://192.0.2.1:8443
up
daemon --https :9443 --host-volume /srv,/data --attribute rack=a --etcd-endpoints http://a,http://b --placement binpack --verbose
agent
agent --no-user-namespaces
down
down -q
down --clean-state
down --clean-state --yes
`
