package machine

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/cli/resources"
	"github.com/marinaos/marina/internal/kernel"
)

// Command is the noun with its verbs.
func Command(e *command.Env) *cobra.Command {
	return command.Group("machine", "Machines of the pool", list(e), show(e), reserve(e), remove(e), pool(e))
}

func list(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the machines", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			var answer struct {
				Machines []kernel.AgentView `json:"machines"`
			}
			b, err := cl.Get(c.Context(), "/machines/v1", &answer)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			rows := [][]string{}
			for _, m := range answer.Machines {
				rows = append(rows, []string{string(m.ID), m.Hostname, m.Address.String(), reached(&m), strconv.Itoa(m.Instances),
					share(m.Used.MilliCPU, m.Total.MilliCPU, func(n int64) string { return output.Number(float64(n) / 1000) }),
					share(m.Used.Mem, m.Total.Mem, kernel.FormatBytes)})
			}
			e.Table([]string{"ID", "HOSTNAME", "ADDRESS", "STATE", "INSTANCES", "CPUS", "MEM"}, rows)
			return nil
		}}
}

func show(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "show ID", Short: "Show one machine", Args: command.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			var m kernel.AgentView
			b, err := cl.Get(c.Context(), "/machines/v1/"+url.PathEscape(args[0]), &m)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			e.Fields("id", string(m.ID), "hostname", m.Hostname, "address", m.Address.String(), "state", reached(&m),
				"subnet", m.Subnet.String(), "gives", m.Total.String(), "promised", m.Used.String(), "free", m.Free.String(),
				"instances", strconv.Itoa(m.Instances), "host ports", fmt.Sprintf("%d-%d", m.Ports.First, m.Ports.Last),
				"kernel", m.Kernel, "cgroups", m.Cgroup, "version", m.Version)
			for _, r := range m.Reserved {
				e.Fields("reserved for "+r.Role, r.Amount.String())
			}
			for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
				e.Fields("attribute "+name, m.Attributes[name])
			}
			for _, w := range m.Warnings {
				e.Fields("warning", w)
			}
			return nil
		}}
}

func reserve(e *command.Env) *cobra.Command {
	var kept resources.Amounts
	var none bool
	c := &cobra.Command{Use: "reserve ID ROLE", Short: "Keep a part of a machine for a group", Args: command.Exactly(2),
		Long: "Keeps an amount of one machine for a role, the path of a group such as /prod, and those below it, in place " +
			"of what it had.\n" +
			"An app's acceptedResourceRoles says whether it may use it: [\"*\"] not at all, its group's name that alone, " +
			"nothing or both either.",
		Example: "marina machine reserve ID /prod --cpus 4 --mem 8192\nmarina machine reserve ID /prod --none",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			path := "/machines/v1/" + url.PathEscape(args[0]) + "/reserved" + resources.RolePath(args[1])
			if none {
				if _, err := cl.Call(c.Context(), http.MethodDelete, path, nil); err != nil {
					return err
				}
				fmt.Fprintf(e.Out, "%s keeps nothing for %s\n", args[0], args[1])
				return nil
			}
			var r kernel.Resources
			if err := kept.Read(c, &r, false); err != nil {
				return err
			}
			if r.IsZero() {
				return exit.Usage("marina machine reserve --help",
					"nothing is to be kept: give --cpus, --mem, --disk or --gpus, or --none")
			}
			b, err := cl.Call(c.Context(), http.MethodPut, path, r)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			fmt.Fprintf(e.Out, "%s keeps %s for %s\n", args[0], r, args[1])
			return nil
		}}
	kept.Flags(c.Flags(), "", "")
	c.Flags().BoolVar(&none, "none", false, "keep nothing any more")
	return c
}

func remove(e *command.Env) *cobra.Command {
	var force, yes bool
	c := &cobra.Command{Use: "remove ID", Short: "Take a machine out of the datacenter for good", Args: command.Exactly(1),
		Long: "Ends what runs on the machine, for schedulers to place it elsewhere, gives its addresses back and forgets " +
			"it.\n" +
			"While it is connected and runs something, or keeps volumes, that takes --force, and the volumes are lost.\n" +
			"It cannot come back as what it was: run `marina down` on it.",
		Example: "marina machine remove m-abcdefghijkl\nmarina machine remove m-abcdefghijkl --force --yes",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			path := "/machines/v1/" + url.PathEscape(args[0])
			if !yes {
				var m kernel.AgentView
				if _, err := cl.Get(c.Context(), path, &m); err != nil {
					return err
				}
				if err := e.Confirm(fmt.Sprintf("Remove machine %s (%s, %s), which runs %d instances?", args[0],
					m.Hostname, reached(&m),
					m.Instances)); err != nil {
					return err
				}
			}
			if force {
				path += "?force=true"
			}
			b, err := cl.Call(c.Context(), http.MethodDelete, path, nil)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			var gone kernel.Removal
			if err := client.Unmarshal(b, &gone); err != nil {
				return err
			}
			fmt.Fprintf(e.Out, "%s (%s) is removed, %d instances ended\n", gone.Machine, gone.Hostname, len(gone.Instances))
			for _, claim := range gone.Lost {
				fmt.Fprintf(e.Out, "lost: the volumes of %s (%s)\n", claim.Name, claim.Framework)
			}
			return nil
		}}
	c.Flags().BoolVar(&force, "force", false, "also while it runs something or keeps volumes")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func pool(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "pool [PREFIX]", Short: "Show or grow the range that machines get addresses from",
		Args: command.AtMost(1),
		Long: "Each machine has a /24 of the pool for its containers. A pool that has no more can grow to a larger one " +
			"that has all of it,\n" +
			"such as 10.128.0.0/12 for 10.130.0.0/16, and shrink again to where no machine has addresses. Machines take it " +
			"on at once: look\n" +
			"first that none of them reaches anything else in it (`ip route`).",
		Example: "marina machine pool\nmarina machine pool 10.128.0.0/12",
		RunE: func(c *cobra.Command, args []string) error {
			method, body := http.MethodGet, any(nil)
			if len(args) == 1 {
				p, err := netip.ParsePrefix(args[0])
				if err != nil || !p.Addr().Is4() {
					return exit.Usage("marina machine pool --help", "pool %q: expected an IPv4 network such as 10.128.0.0/12", args[0])
				}
				method, body = http.MethodPut, map[string]netip.Prefix{"pool": p}
			}
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.Call(c.Context(), method, "/net/v1/pool", body)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			var now struct {
				Pool          netip.Prefix
				Subnets, Used int
			}
			if err := client.Unmarshal(b, &now); err != nil {
				return err
			}
			e.Fields("pool", now.Pool.String(), "subnets", strconv.Itoa(now.Subnets), "used", strconv.Itoa(now.Used))
			return nil
		}}
}

func reached(m *kernel.AgentView) string {
	switch {
	case !m.Away.IsZero():
		return "unreachable for " + output.Ago(m.Away)
	case m.Connected:
		return "connected"
	}
	return "silent"
}

func share(used, total int64, write func(int64) string) string {
	return write(used) + " of " + write(total)
}
