package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/kernel"
)

// Version is the release, stamped by the build.
var Version = "dev"

// Exit codes.
const (
	ExitFailed      = 1 // the request was understood and did not succeed
	ExitUsage       = 2 // the command line is wrong
	ExitNotFound    = 3 // there is no such thing
	ExitConflict    = 4 // something else is in the way: a running deployment, an id that exists
	ExitDenied      = 5 // no token, or not allowed
	ExitTimeout     = 6 // --wait gave up
	ExitUnreachable = 7 // no datacenter answers
)

// Settings is what a datacenter is started with, on one machine.
type Settings struct {
	State      string   // folder of everything the datacenter keeps; default /var/lib/marina or MARINA_STATE
	HTTPS      string   // listen address of the gateway; default :8443
	HTTP       string   // listen address of plain HTTP, loopback only; default 127.0.0.1:8080; "off" for none
	AgentPort  string   // listen address for agents; default :8444
	Runtime    string   // folder of containerd, runc and CNI plugins; default: bundle/runtime/bin beside the binary
	Advertise  string   // this machine's address for others; default: that of the default route
	Hostname   string   // this machine's name in the datacenter; default: the kernel's
	Pool       string   // container addresses; default: a /16 of 10.128.0.0/9 that is free at the first start
	VIPs       string   // virtual addresses; default: 198.18.0.0/16, beside another datacenter a /20 that is free
	Etcd       []string // endpoints of an external etcd; default: embedded
	EtcdCA     string   // PEM files for the external etcd
	EtcdCert   string
	EtcdKey    string
	HostVolume []string // folders of this machine that tasks may bind; default none
	Attribute  []string // name=value of this machine, for constraints
	Placement  string   // strategy for tasks that name none, "spread" or "binpack"; default spread
	SharedIDs  bool     // run containers with this machine's own user ids, as where there are no user namespaces
	Verbose    bool     // log debug messages
}

// Programs is what main lends to the verbs that run inside a datacenter's own processes.
type Programs struct {
	Preflight func(context.Context, Settings) []kernel.Finding
	Running   func(Settings) bool                              // a daemon lives on the state folder
	Daemon    func(context.Context, Settings) error            // runs until ctx ends
	Agent     func(context.Context, Settings) error            // runs until ctx ends
	Down      func(context.Context, Settings, io.Writer) error // stops every task and process, keeps the state
	Clean     func(context.Context, Settings, io.Writer) error // Down, and removes the state
	Build     func() string                                    // names this binary by its content
}

// invocation is one run of the command.
type invocation struct {
	settings Settings
	programs Programs
	out, err io.Writer
	in       io.Reader

	said    map[string][]string // settings that are not the defaults, by flag
	changed bool                // they are not those of the last start

	url, token, ca string
	json, quiet    bool
}

// Main runs a command line and returns its exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer, programs Programs) int {
	v := &invocation{programs: programs, out: out, err: errOut, in: in}
	root := v.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetIn(in)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := ExitFailed
	if e, ok := errors.AsType[*Error](err); ok {
		code = e.Code
	}
	var quiet *exitCode
	if errors.As(err, &quiet) {
		return quiet.code
	}
	fmt.Fprintln(errOut, "marina:", clean(err.Error()))
	if e, ok := errors.AsType[*Error](err); ok && e.Next != "" {
		fmt.Fprintln(errOut, "  try:", e.Next)
	}
	return code
}

// Error is a failure with its exit code and what to do next.
type Error struct {
	Code    int
	Message string
	Next    string
}

func (e *Error) Error() string { return e.Message }

// exitCode ends the command with a code and no message: a remote command's own.
type exitCode struct{ code int }

func (e *exitCode) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func usage(next, format string, args ...any) error {
	return &Error{Code: ExitUsage, Message: fmt.Sprintf(format, args...), Next: next}
}

func (v *invocation) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "marina",
		Short: "One computer out of a room of machines",
		Long: "Marina runs services, jobs, databases and Kubernetes clusters side by side on one pool of machines.\n\n" +
			"Start with `marina up`, then `marina status`.",
		Version: Version, SilenceErrors: true, SilenceUsage: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(c.CommandPath()+" --help", "%v", err)
	})
	f := root.PersistentFlags()
	f.StringVar(&v.url, "url", os.Getenv("MARINA_URL"), "the datacenter's address, https://host:8443")
	f.StringVar(&v.token, "token", "", "token to use (better: MARINA_TOKEN, or marina login)")
	f.StringVar(&v.ca, "ca", os.Getenv("MARINA_CA"), "file with the datacenter's CA certificate")
	f.StringVar(&v.settings.State, "state", or(os.Getenv("MARINA_STATE"), "/var/lib/marina"), "the datacenter's state folder on this machine")
	f.BoolVar(&v.json, "json", false, "print the API's answer")
	f.BoolVarP(&v.quiet, "quiet", "q", false, "print results only, no progress")
	root.AddGroup(&cobra.Group{ID: "work", Title: "Work:"}, &cobra.Group{ID: "pool", Title: "Pool:"},
		&cobra.Group{ID: "dc", Title: "Datacenter:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("work", v.appCommand(), v.deploymentCommand(), v.taskCommand(), v.clusterCommand(), v.imageCommand())
	add("pool", v.machineCommand(), v.quotaCommand())
	add("dc", v.upCommand(), v.downCommand(), v.statusCommand(), v.tokenCommand(), v.loginCommand())
	root.AddCommand(v.daemonCommand(), v.agentCommand())
	return root
}

// group is a command that only holds others.
func group(use, short string, cmds ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c.CommandPath()+" --help", "%s has no verb %q", c.CommandPath(), args[0])
		}
		return c.Help()
	}}
	c.AddCommand(cmds...)
	return c
}

// exactly checks the number of arguments and says which are expected.
func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(c.CommandPath()+" --help", "expected `%s`, got %d arguments", c.UseLine(), len(args))
		}
		return nil
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
