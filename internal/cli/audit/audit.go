package audit

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/audit"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/output"
)

// Command is the noun; it has no verbs, for nobody changes what it shows.
func Command(e *command.Env) *cobra.Command {
	var who, path, since, outcome string
	limit := 50
	c := &cobra.Command{Use: "audit", Short: "Who changed what, from where, with which outcome", Args: command.Exactly(0),
		Long: "Shows the newest records of changes and of refusals, oldest first. Sessions in a task have two: one when " +
			"they began, one when they ended.",
		Example: "  marina audit --who ann --since 1d\n" +
			"  marina audit --path /service/marathon/v2/apps/prod --outcome refused",
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for key, value := range map[string]string{"who": who, "path": path, "since": since, "outcome": outcome} {
				if value != "" {
					q.Set(key, value)
				}
			}
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			var answer struct {
				Records []audit.Record `json:"records"`
			}
			b, err := cl.Get(c.Context(), audit.Base+"?"+q.Encode(), &answer)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			if len(answer.Records) == 0 {
				fmt.Fprintln(e.Out, "No such records.")
				return nil
			}
			rows := [][]string{}
			for i := range answer.Records {
				rows = append(rows, row(&answer.Records[i]))
			}
			e.Fitted([]string{"AGO", "WHO", "FROM", "OUTCOME", "WHAT"}, rows, 4)
			return nil
		}}
	f := c.Flags()
	f.StringVar(&who, "who", "", "of this user, logins included")
	f.StringVar(&path, "path", "", "of this path of the API and all below it")
	f.StringVar(&since, "since", "", "not older: 90m, 7d, or a time such as 2026-11-30T10:00:00Z")
	f.StringVar(&outcome, "outcome", "", "done, refused, failed or begun")
	f.IntVar(&limit, "limit", limit, "at most so many, the newest")
	_ = c.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions(
		[]cobra.Completion{string(audit.Done), string(audit.Refused), string(audit.Failed), string(audit.Begun)},
		cobra.ShellCompDirectiveNoFileComp))
	return c
}

// row is a record as a line of the table.
func row(r *audit.Record) []string {
	outcome := string(r.Outcome)
	if r.Outcome == audit.Refused || r.Outcome == audit.Failed && r.Status != 0 {
		outcome += fmt.Sprintf(" %d", r.Status)
	}
	if r.Phase == audit.PhaseEnded {
		outcome = fmt.Sprintf("ended %v", r.Duration.Round(time.Second))
	}
	what := r.Action + " " + strings.TrimPrefix(r.Path, "/service/marathon") // Marathon's paths are as short without it
	notes := []string{}
	for key, value := range r.Notes {
		if key != "uid" || r.Who != "" {
			notes = append(notes, key+" "+value)
		}
	}
	if slices.Sort(notes); len(notes) > 0 {
		what += " (" + strings.Join(notes, ", ") + ")"
	}
	return []string{output.Ago(r.Time), cmp.Or(r.Who, r.Notes["uid"], "a stranger"), r.From, outcome, what}
}
