package command_test

import (
	"bytes"
	"context"
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
)

func TestANumberOfArgumentsThatIsWrongIsAUsageError(t *testing.T) {
	for what, tc := range map[string]struct {
		check cobra.PositionalArgs
		right []int
	}{
		"none": {command.Exactly(0), []int{0}}, "two": {command.Exactly(2), []int{2}},
		"at most one":  {command.AtMost(1), []int{0, 1}},
		"at least two": {command.AtLeast(2), []int{2, 3}}, "some": {command.Some, []int{1, 2, 3}},
	} {
		c := &cobra.Command{Use: "verb THING"}
		for n := range 4 {
			err := tc.check(c, make([]string, n))
			if slices.Contains(tc.right, n) {
				if err != nil {
					t.Errorf("%s: %d arguments: %v", what, n, err)
				}
				continue
			}
			if e, ok := err.(*exit.Error); !ok || e.Code != exit.BadUsage || e.Next != "verb --help" ||
				!strings.Contains(e.Message, "`verb THING`") {
				t.Errorf("%s: %d arguments: %#v, want what is expected and where help is", what, n, err)
			}
		}
	}
}

func TestANounWithoutAVerbIsItsHelp(t *testing.T) {
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		noun := command.Group("noun", "Things", &cobra.Command{Use: "list", Short: "List things",
			Run: func(*cobra.Command, []string) {}})
		noun.SilenceErrors, noun.SilenceUsage = true, true
		noun.SetArgs(args)
		noun.SetOut(&out)
		err := noun.Execute()
		return out.String(), err
	}
	if out, err := run(); err != nil || !strings.Contains(out, "List things") {
		t.Errorf("%q, %v, want its verbs", out, err)
	}
	if out, err := run("frobnicate"); !exit.Is(err, exit.BadUsage) && !strings.Contains(err.Error(), "frobnicate") ||
		out != "" {
		t.Errorf("a verb that is none: %q, %v", out, err)
	}
}

func TestACompletionThatCannotAskProposesNothing(t *testing.T) {
	clitest.Home(t)
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	c := &cobra.Command{}
	c.SetContext(t.Context())
	words := func(ctx context.Context, cl *client.Client) []string {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("somebody waits with a finger on the key, and nothing bounds it")
		}
		return []string{cl.Token}
	}
	e := &command.Env{Options: client.Options{URL: srv.URL, Token: "t", State: t.TempDir()}}
	if got, d := e.Complete(c, words); !slices.Equal(got, []string{"t"}) || d != cobra.ShellCompDirectiveNoFileComp {
		t.Errorf("got %q, %v", got, d)
	}
	e.URL = "nonsense"
	if got, d := e.Complete(c, words); got != nil || d != cobra.ShellCompDirectiveNoFileComp {
		t.Errorf("no datacenter: %q, %v, want nothing and no files", got, d)
	}
}
