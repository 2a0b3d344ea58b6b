package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/kernel"
)

func (v *invocation) machineCommand() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List the machines", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		var answer struct {
			Machines []kernel.AgentView `json:"machines"`
		}
		b, err := cl.get(c.Context(), "/machines/v1", &answer)
		if err != nil {
			return err
		}
		if v.json {
			return v.raw(b)
		}
		rows := [][]string{}
		for _, m := range answer.Machines {
			rows = append(rows, []string{string(m.ID), m.Hostname, m.Address.String(), reached(&m), strconv.Itoa(m.Groups),
				share(m.Used.MilliCPU, m.Total.MilliCPU, func(n int64) string { return num(float64(n) / 1000) }),
				share(m.Used.Mem, m.Total.Mem, kernel.FormatBytes)})
		}
		v.table([]string{"ID", "HOSTNAME", "ADDRESS", "STATE", "INSTANCES", "CPUS", "MEM"}, rows)
		return nil
	}}
	show := &cobra.Command{Use: "show ID", Short: "Show one machine", Args: exactly(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		var m kernel.AgentView
		b, err := cl.get(c.Context(), "/machines/v1/"+url.PathEscape(args[0]), &m)
		if err != nil {
			return err
		}
		if v.json {
			return v.raw(b)
		}
		v.fields("id", string(m.ID), "hostname", m.Hostname, "address", m.Address.String(), "state", reached(&m),
			"subnet", m.Subnet.String(), "gives", m.Total.String(), "promised", m.Used.String(), "free", m.Free.String(), "instances", strconv.Itoa(m.Groups),
			"host ports", fmt.Sprintf("%d-%d", m.Ports.First, m.Ports.Last), "kernel", m.Kernel, "cgroups", m.Cgroup, "version", m.Version)
		for _, r := range m.Reserved {
			v.fields("reserved for "+r.Role, r.Amount.String())
		}
		for name, value := range m.Attributes {
			v.fields("attribute "+name, value)
		}
		for _, w := range m.Warnings {
			v.fields("warning", w)
		}
		return nil
	}}
	return group("machine", "Machines of the pool", list, show, v.reserveCommand())
}

func (v *invocation) reserveCommand() *cobra.Command {
	var kept amounts
	var none bool
	reserve := &cobra.Command{Use: "reserve ID ROLE", Short: "Keep a part of a machine for a group", Args: exactly(2),
		Long: "Keeps an amount of one machine for a role, the path of a group such as /prod, and those below it, in place of what it had.\n" +
			"An app's acceptedResourceRoles says whether it may use it: [\"*\"] not at all, its group's name that alone, nothing or both either.",
		Example: "marina machine reserve ID /prod --cpus 4 --mem 8192\nmarina machine reserve ID /prod --none",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			path := "/machines/v1/" + url.PathEscape(args[0]) + "/reserved" + rolePath(args[1])
			if none {
				if _, err := cl.call(c.Context(), http.MethodDelete, path, nil); err != nil {
					return err
				}
				fmt.Fprintf(v.out, "%s keeps nothing for %s\n", args[0], args[1])
				return nil
			}
			var r kernel.Resources
			if err := kept.read(c, &r, false); err != nil {
				return err
			}
			if r.IsZero() {
				return usage("marina machine reserve --help", "nothing is to be kept: give --cpus, --mem, --disk or --gpus, or --none")
			}
			b, err := cl.call(c.Context(), http.MethodPut, path, r)
			if err != nil {
				return err
			}
			if v.json {
				return v.raw(b)
			}
			fmt.Fprintf(v.out, "%s keeps %s for %s\n", args[0], r, args[1])
			return nil
		}}
	kept.flags(reserve.Flags(), "", "")
	reserve.Flags().BoolVar(&none, "none", false, "keep nothing any more")
	return reserve
}

func reached(m *kernel.AgentView) string {
	switch {
	case !m.Away.IsZero():
		return "unreachable for " + ago(m.Away)
	case m.Connected:
		return "connected"
	}
	return "silent"
}

func share(used, total int64, write func(int64) string) string {
	return write(used) + " of " + write(total)
}

func (v *invocation) imageCommand() *cobra.Command {
	type image struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	}
	var answer struct {
		Images []image `json:"images"`
	}
	show := func(b []byte) error {
		if v.json {
			return v.raw(b)
		}
		rows := [][]string{}
		for _, i := range answer.Images {
			rows = append(rows, []string{strings.TrimPrefix(strings.TrimPrefix(i.Name, "docker.io/"), "library/"), short(i.Digest, 20), kernel.FormatBytes(i.Size)})
		}
		v.table([]string{"NAME", "DIGEST", "SIZE"}, rows)
		return nil
	}
	list := &cobra.Command{Use: "list", Short: "List the datacenter's images", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		b, err := cl.get(c.Context(), "/images/v1", &answer)
		if err != nil {
			return err
		}
		return show(b)
	}}
	var name string
	var into []string
	load := &cobra.Command{Use: "load FILE", Short: "Load an image from an OCI or docker archive (- reads standard input)", Args: exactly(1),
		Long: "Loads an image for services, or with --cluster into the nodes of clusters, where pods use it by its name.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			if c.Flags().Changed("cluster") {
				return v.uploadTo(c.Context(), cl, args[0], name, into)
			}
			b, err := v.upload(c.Context(), cl, "/images/v1", args[0], name)
			if err != nil {
				return err
			}
			if err := unmarshal(b, &answer); err != nil {
				return err
			}
			return show(b)
		}}
	load.Flags().StringVar(&name, "name", "", "name the image, if its archive does not or another is wanted")
	load.Flags().StringSliceVar(&into, "cluster", nil, "load it into the nodes of these clusters instead")
	_ = load.RegisterFlagCompletionFunc("cluster", v.completeNames)
	remove := &cobra.Command{Use: "remove NAME", Short: "Remove an image; what runs is not affected", Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			if _, err := cl.call(c.Context(), http.MethodDelete, "/images/v1/"+args[0], nil); err != nil {
				return err
			}
			fmt.Fprintln(v.out, "removed", args[0])
			return nil
		}}
	return group("image", "Images that tasks run from", list, load, remove)
}

// open opens a file argument; "-" is standard input.
func (v *invocation) open(name string) (*os.File, error) {
	if name == "-" {
		if f, ok := v.in.(*os.File); ok {
			return f, nil
		}
		return nil, usage("", "there is no standard input")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, usage("", "%v", err)
	}
	return f, nil
}
