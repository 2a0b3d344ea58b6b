package cli

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/marinaos/marina/internal/kernel"
)

func (v *invocation) quotaCommand() *cobra.Command {
	show := &cobra.Command{Use: "show [ROLE]", Short: "Show who has, uses and waits for how much, and why", Args: cobra.MaximumNArgs(1), RunE: v.showQuotas}
	cmd := group("quota", "Shares of the pool: who has, uses and waits for how much", show, v.quotaSetCommand())
	help := cmd.RunE
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return help(c, args)
		}
		return v.showQuotas(c, nil)
	}
	return cmd
}

func (v *invocation) showQuotas(c *cobra.Command, args []string) error {
	cl, err := v.client(c.Context())
	if err != nil {
		return err
	}
	var answer struct {
		Quotas []kernel.QuotaView `json:"quotas"`
	}
	b, err := cl.get(c.Context(), "/quota/v1", &answer)
	if err != nil {
		return err
	}
	if v.json {
		return v.raw(b)
	}
	rows, notes := [][]string{}, []string{}
	for i := range answer.Quotas {
		q := &answer.Quotas[i]
		if len(args) == 1 && !strings.HasPrefix(strings.TrimRight(q.Role, "/")+"/", strings.TrimRight(args[0], "/")+"/") {
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
		notes = append(notes, quotaNotes(q)...)
	}
	if len(args) == 1 && len(rows) == 0 {
		return &Error{Code: ExitNotFound, Message: "role " + args[0] + " has no quota and uses nothing", Next: "marina quota set " + args[0] + " --cpus 4 --mem 8192"}
	}
	if len(rows) == 0 {
		fmt.Fprintln(v.out, "No quotas, and nothing is used. Set one: marina quota set /team --cpus 4 --mem 8192")
		return nil
	}
	v.table([]string{"ROLE", "GUARANTEE", "LIMIT", "USED", "SHARE", "WAITS"}, rows)
	for _, n := range notes {
		fmt.Fprintln(v.out, n)
	}
	return nil
}

// portion is a role's share and, when it has another than 1, its weight: "12% x2".
func portion(q *kernel.QuotaView) string {
	s := fmt.Sprintf("%.0f%%", math.Ceil(q.Share*100))
	if q.Weight != 1 {
		s += " x" + num(q.Weight)
	}
	return s
}

// quotaNotes are what does not fit into a table.
func quotaNotes(q *kernel.QuotaView) (notes []string) {
	if !q.Held.IsZero() && q.Guarantee != nil {
		notes = append(notes, fmt.Sprintf("%s: %s of its guarantee is not used and held for it", q.Role, q.Held))
	}
	if !q.Lent.IsZero() && q.Role != "/" {
		notes = append(notes, fmt.Sprintf("%s: %s of what it uses is on loan, by work with a priority below zero", q.Role, q.Lent))
	}
	if q.Why != "" {
		notes = append(notes, fmt.Sprintf("%s: %d waiting for %s: %s", q.Role, q.Waiting, q.Asks, q.Why))
	}
	return notes
}

func (v *invocation) quotaSetCommand() *cobra.Command {
	var bounds amounts
	var guarantee string
	var weight float64
	var none, force bool
	set := &cobra.Command{Use: "set ROLE", Short: "Set what a group and those below it may use, and what is held for them", Args: exactly(1),
		Long: "Sets the quota of a role: the path of a group such as /prod or /prod/web, or / for the whole datacenter. What is not given stays as it is.\n" +
			"A limit below what is used starts nothing new and stops nothing. What is guaranteed is held: others get it only on loan,\n" +
			"for work with a priority below zero, which makes way. The weight counts while there is not enough for all that wait.",
		Example: "marina quota set /prod --cpus 8 --mem 16384 --guarantee cpus=2,mem=4096\nmarina quota set /prod --cpus none --weight 2",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			path := "/quota/v1" + rolePath(args[0])
			if none {
				if _, err := cl.call(c.Context(), http.MethodDelete, path, nil); err != nil {
					return err
				}
				fmt.Fprintln(v.out, "removed the quota of", args[0])
				return nil
			}
			q, err := v.quotaNow(c, cl, args[0])
			if err != nil {
				return err
			}
			if err := bounds.read(c, &q.Limit, true); err != nil {
				return err
			}
			if c.Flags().Changed("guarantee") {
				if err := setGuarantee(&q.Guarantee, guarantee); err != nil {
					return err
				}
			}
			if c.Flags().Changed("weight") {
				q.Weight = weight
			}
			b, err := cl.call(c.Context(), http.MethodPut, path, map[string]any{"limit": q.Limit, "guarantee": q.Guarantee, "weight": q.Weight, "force": force})
			if err != nil {
				return err
			}
			if v.json {
				return v.raw(b)
			}
			fmt.Fprintf(v.out, "%s may use %s", args[0], limits(q.Limit))
			if !q.Guarantee.IsZero() {
				fmt.Fprintf(v.out, ", %s is held for it", q.Guarantee)
			}
			fmt.Fprintln(v.out)
			return nil
		}}
	f := set.Flags()
	bounds.flags(f, "limit: ", ", or none")
	f.StringVar(&guarantee, "guarantee", "", "what is held for the role: cpus=2,mem=4096, as for limits, or none")
	f.Float64Var(&weight, "weight", 1, "how much it gets beside its siblings while there is not enough")
	f.BoolVar(&force, "force", false, "guarantee more than all machines have")
	f.BoolVar(&none, "none", false, "remove the quota")
	return set
}

// amounts are flags with an amount of each resource.
type amounts [len(kernel.Components)]string

func (a *amounts) flags(f *pflag.FlagSet, before, after string) {
	for i, what := range []string{"cores", "memory in MiB", "disk in MiB", "GPUs"} {
		f.StringVar(&a[i], kernel.Components[i], "", before+what+after)
	}
}

// read changes what is given.
func (a *amounts) read(c *cobra.Command, r *kernel.Resources, mayNone bool) error {
	for i, name := range kernel.Components {
		if c.Flags().Changed(name) {
			if err := setPart(r, name, a[i], mayNone); err != nil {
				return err
			}
		}
	}
	return nil
}

// rolePath is a role as a path of the API.
func rolePath(role string) string {
	var out strings.Builder
	for _, part := range strings.Split(strings.Trim(role, "/"), "/") {
		out.WriteString("/" + url.PathEscape(part))
	}
	return out.String()
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
			return usage("marina quota set --help", "guarantee %q: expected cpus=2,mem=4096, or none", text)
		}
		if err := setPart(r, name, amount, false); err != nil {
			return err
		}
	}
	return nil
}

// quotaNow is the quota that a role has, or an empty one.
func (v *invocation) quotaNow(c *cobra.Command, cl *client, role string) (kernel.Quota, error) {
	q := kernel.Quota{Limit: kernel.NoLimit}
	var answer struct {
		Quotas []kernel.QuotaView `json:"quotas"`
	}
	if _, err := cl.get(c.Context(), "/quota/v1", &answer); err != nil {
		return q, err
	}
	for _, had := range answer.Quotas {
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

// setPart reads an amount as people give it: cores, MiB, or devices.
func setPart(r *kernel.Resources, name, text string, mayNone bool) error {
	n, err := strconv.ParseFloat(text, 64)
	expected := "a number"
	if mayNone {
		expected = "a number, or none"
		if text == "none" {
			n, err = kernel.Unlimited, nil
		} else if n < 0 {
			return usage("", "%s %s: a limit cannot be negative: none has no limit", name, text)
		}
	}
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n < 0 && n != kernel.Unlimited {
		return usage("marina quota set --help", "%s %q: expected %s", name, text, expected)
	}
	scaled := func(by float64) int64 {
		if n == kernel.Unlimited {
			return kernel.Unlimited
		}
		return int64(min(n*by, math.MaxInt64/2))
	}
	switch name {
	case "cpus":
		r.MilliCPU = scaled(1000)
	case "mem":
		r.Mem = scaled(float64(kernel.MiB))
	case "disk":
		r.Disk = scaled(float64(kernel.MiB))
	case "gpus":
		r.GPUs = scaled(1)
	default:
		return usage("marina quota set --help", "%q is not among %s", name, strings.Join(kernel.Components[:], ", "))
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
