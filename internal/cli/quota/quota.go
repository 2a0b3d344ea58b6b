package quota

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/cli/resources"
	"github.com/marinaos/marina/internal/kernel"
)

// Command is the noun with its verbs; without one it is show.
func Command(e *command.Env) *cobra.Command {
	cmd := command.Group("quota", "Shares of the pool: who has, uses and waits for how much", show(e), set(e))
	help := cmd.RunE
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return help(c, args)
		}
		return printQuotas(c.Context(), e, "")
	}
	return cmd
}

func show(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "show [ROLE]", Short: "Show who has, uses and waits for how much, and why",
		Args: command.AtMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return printQuotas(c.Context(), e, "")
			}
			return printQuotas(c.Context(), e, args[0])
		}}
}

// quotas asks for all of them; b is the answer as it came.
func quotas(ctx context.Context, cl *client.Client) (all []kernel.QuotaView, b []byte, err error) {
	var answer struct {
		Quotas []kernel.QuotaView `json:"quotas"`
	}
	b, err = cl.Get(ctx, "/quota/v1", &answer)
	return answer.Quotas, b, err
}

// printQuotas shows a role and those below it; "" is everybody.
func printQuotas(ctx context.Context, e *command.Env, role string) error {
	cl, err := e.Client(ctx)
	if err != nil {
		return err
	}
	all, b, err := quotas(ctx, cl)
	if err != nil {
		return err
	}
	if e.JSON {
		return e.Raw(b)
	}
	rows, notes := [][]string{}, []string{}
	for i := range all {
		q := &all[i]
		if role != "" && !strings.HasPrefix(strings.TrimRight(q.Role, "/")+"/", strings.TrimRight(role, "/")+"/") {
			continue
		}
		limit, guarantee, waits := "none", "none", ""
		if q.Limit != nil {
			limit = limits(*q.Limit)
		}
		if q.Guarantee != nil {
			guarantee = q.Guarantee.String()
		}
		if q.Waiting > 0 {
			waits = strconv.Itoa(q.Waiting)
		}
		rows = append(rows, []string{q.Role, guarantee, limit, q.Used.String(), portion(q), waits})
		notes = append(notes, remarks(q)...)
	}
	if len(rows) == 0 && role != "" {
		return &exit.Error{Code: exit.NotFound, Message: "role " + role + " has no quota and uses nothing",
			Next: "marina quota set " + role + " --cpus 4 --mem 8192"}
	}
	if len(rows) == 0 {
		fmt.Fprintln(e.Out, "No quotas, and nothing is used. Set one: marina quota set /team --cpus 4 --mem 8192")
		return nil
	}
	e.Table([]string{"ROLE", "GUARANTEE", "LIMIT", "USED", "SHARE", "WAITS"}, rows)
	for _, n := range notes {
		fmt.Fprintln(e.Out, n)
	}
	return nil
}

// portion is a role's share and, when it has another than 1, its weight: "12% x2".
func portion(q *kernel.QuotaView) string {
	s := fmt.Sprintf("%.0f%%", math.Ceil(q.Share*100))
	if q.Weight != 1 {
		s += " x" + output.Number(q.Weight)
	}
	return s
}

// remarks lists what does not fit into a table.
func remarks(q *kernel.QuotaView) (notes []string) {
	if !q.Held.IsZero() && q.Guarantee != nil {
		notes = append(notes, fmt.Sprintf("%s: %s of its guarantee is not used and held for it", q.Role, q.Held))
	}
	if !q.Preemptible.IsZero() && q.Role != "/" {
		notes = append(notes, fmt.Sprintf("%s: %s of what it uses is on loan, by work with a priority below zero",
			q.Role, q.Preemptible))
	}
	if q.Why != "" {
		notes = append(notes, fmt.Sprintf("%s: %d waiting for %s: %s", q.Role, q.Waiting, q.Asks, q.Why))
	}
	return notes
}

// wish holds the flags of `marina quota set`.
type wish struct {
	bounds      resources.Amounts
	guarantee   string
	weight      float64
	none, force bool
}

func set(e *command.Env) *cobra.Command {
	var w wish
	c := &cobra.Command{Use: "set ROLE", Short: "Set what a group and those below it may use, and what is held for them",
		Args: command.Exactly(1),
		Long: "Sets the quota of a role: the path of a group such as /prod or /prod/web, or / for the whole datacenter. " +
			"What is not given stays as it is.\n" +
			"A limit below what is used starts nothing new and stops nothing. What is guaranteed is held: others get it only " +
			"on loan,\n" +
			"for work with a priority below zero, which makes way. The weight counts while there is not enough for all that " +
			"wait.",
		Example: "marina quota set /prod --cpus 8 --mem 16384 --guarantee cpus=2,mem=4096\nmarina quota set /prod --cpus " +
			"none --weight 2",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			path := "/quota/v1" + resources.RolePath(args[0])
			if w.none {
				if _, err := cl.Call(c.Context(), http.MethodDelete, path, nil); err != nil {
					return err
				}
				fmt.Fprintln(e.Out, "removed the quota of", args[0])
				return nil
			}
			q, err := now(c.Context(), cl, args[0])
			if err == nil {
				err = w.change(c, &q)
			}
			if err != nil {
				return err
			}
			b, err := cl.Call(c.Context(), http.MethodPut, path,
				map[string]any{"limit": q.Limit, "guarantee": q.Guarantee, "weight": q.Weight, "force": w.force})
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			fmt.Fprintf(e.Out, "%s may use %s", args[0], limits(q.Limit))
			if !q.Guarantee.IsZero() {
				fmt.Fprintf(e.Out, ", %s is held for it", q.Guarantee)
			}
			fmt.Fprintln(e.Out)
			return nil
		}}
	f := c.Flags()
	w.bounds.Flags(f, "limit: ", ", or none")
	f.StringVar(&w.guarantee, "guarantee", "", "what is held for the role: cpus=2,mem=4096, as for limits, or none")
	f.Float64Var(&w.weight, "weight", 1, "how much it gets beside its siblings while there is not enough")
	f.BoolVar(&w.force, "force", false, "guarantee more than all machines have")
	f.BoolVar(&w.none, "none", false, "remove the quota")
	return c
}

// change writes what was said into a quota.
func (w *wish) change(c *cobra.Command, q *kernel.Quota) error {
	if err := w.bounds.Read(c, &q.Limit, true); err != nil {
		return err
	}
	if c.Flags().Changed("guarantee") {
		if err := setGuarantee(&q.Guarantee, w.guarantee); err != nil {
			return err
		}
	}
	if c.Flags().Changed("weight") {
		q.Weight = w.weight
	}
	return nil
}

// now is the quota that a role has, or an empty one.
func now(ctx context.Context, cl *client.Client, role string) (kernel.Quota, error) {
	q := kernel.Quota{Limit: kernel.NoLimit}
	all, _, err := quotas(ctx, cl)
	if err != nil {
		return q, err
	}
	for _, had := range all {
		if had.Role != "/"+strings.Trim(role, "/") {
			continue
		}
		if had.Limit != nil {
			q.Limit = *had.Limit
		}
		if had.Guarantee != nil {
			q.Guarantee = *had.Guarantee
		}
		q.Weight = had.Weight
	}
	return q, nil
}

// setGuarantee changes what is named in text, "cpus=2,mem=4096", or all of it to nothing.
func setGuarantee(r *kernel.Resources, text string) error {
	if text == "none" {
		*r = kernel.Resources{}
		return nil
	}
	for _, part := range strings.Split(text, ",") {
		name, amount, ok := strings.Cut(part, "=")
		if !ok {
			return exit.Usage("marina quota set --help", "guarantee %q: expected cpus=2,mem=4096, or none", text)
		}
		if err := resources.Set(r, name, amount, false); err != nil {
			return err
		}
	}
	return nil
}

// limits writes a quota's bounds; unbounded components are left out.
func limits(r kernel.Resources) string {
	var parts []string
	for i, n := range r.Parts() {
		if name := kernel.Components[i]; n != kernel.Unlimited {
			parts = append(parts, r.Amount(name)+" "+name)
		}
	}
	if len(parts) == 0 {
		return "no limit"
	}
	return strings.Join(parts, ", ")
}
