package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/app"
	"github.com/marinaos/marina/internal/cli/audit"
	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/cluster"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/datacenter"
	"github.com/marinaos/marina/internal/cli/deployment"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/image"
	"github.com/marinaos/marina/internal/cli/machine"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/cli/quota"
	"github.com/marinaos/marina/internal/cli/task"
	"github.com/marinaos/marina/internal/cli/token"
	"github.com/marinaos/marina/internal/settings"
)

// Version is the release, stamped by the build.
var Version = "dev"

// Programs holds main's implementations of the verbs that run inside a datacenter's own processes.
type Programs = datacenter.Programs

// Run runs a command line and returns its exit code.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer, programs Programs) int {
	e := &command.Env{Printer: output.Printer{Out: out, Err: errOut, In: in}}
	root := New(e, programs)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetIn(in)
	err := root.ExecuteContext(ctx)
	if err != nil {
		report(errOut, err)
	}
	return exit.Code(err)
}

// report prints what went wrong and what to do next.
func report(w io.Writer, err error) {
	if _, ok := errors.AsType[exit.Status](err); ok {
		return // it has spoken for itself
	}
	fmt.Fprintln(w, "marina:", output.Clean(err.Error()))
	if e, ok := errors.AsType[*exit.Error](err); ok && e.Next != "" {
		fmt.Fprintln(w, "  try:", e.Next)
	}
}

// New is the whole command. Its flags fill in the Env when it runs.
func New(e *command.Env, programs Programs) *cobra.Command {
	root := &cobra.Command{
		Use:   "marina",
		Short: "One computer out of a room of machines",
		Long: "Marina runs services, jobs, databases and Kubernetes clusters side by side on one pool of machines.\n\n" +
			"Start with `marina up`, then `marina status`.",
		Version: Version, SilenceErrors: true, SilenceUsage: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exit.Usage(c.CommandPath()+" --help", "%v", err)
	})
	addFlags(root, &e.Printer, &e.Options)
	root.AddGroup(&cobra.Group{ID: "work", Title: "Work:"}, &cobra.Group{ID: "pool", Title: "Pool:"},
		&cobra.Group{ID: "dc", Title: "Datacenter:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("work", app.Command(e), deployment.Command(e), task.Command(e), cluster.Command(e), image.Command(e))
	add("pool", machine.Command(e), quota.Command(e))
	add("dc", append(datacenter.Verbs(e, programs), token.Command(e), audit.Command(e))...)
	root.AddCommand(datacenter.Processes(e, programs)...)
	return root
}

// addFlags gives the root the flags that all verbs have.
func addFlags(root *cobra.Command, p *output.Printer, o *client.Options) {
	f := root.PersistentFlags()
	f.StringVar(&o.URL, "url", os.Getenv("MARINA_URL"), "the datacenter's address, https://host:8443")
	f.StringVar(&o.Token, "token", "", "token to use (better: MARINA_TOKEN, or marina login)")
	f.StringVar(&o.CA, "ca", os.Getenv("MARINA_CA"), "file with the datacenter's CA certificate")
	f.StringVar(&o.State, "state", cmp.Or(os.Getenv("MARINA_STATE"), settings.State),
		"the datacenter's state directory on this machine")
	f.BoolVar(&p.JSON, "json", false, "print the API's answer")
	f.BoolVarP(&p.Quiet, "quiet", "q", false, "print results only, no progress")
}
