package command

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
)

// Env is a verb's environment: where it reads and writes, and the datacenter it speaks to. The root's flags fill it in
// before a verb runs; the verbs only read it.
type Env struct {
	output.Printer
	client.Options
}

// Group is a command that only holds others.
func Group(use, short string, cmds ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return exit.Usage(c.CommandPath()+" --help", "%s has no verb %q", c.CommandPath(), args[0])
		}
		return c.Help()
	}}
	c.AddCommand(cmds...)
	return c
}

// Exactly checks the number of arguments and says which are expected.
func Exactly(n int) cobra.PositionalArgs { return counted(func(got int) bool { return got == n }) }

// AtMost is Exactly for verbs that take fewer as well.
func AtMost(n int) cobra.PositionalArgs { return counted(func(got int) bool { return got <= n }) }

// AtLeast is Exactly for verbs that take more as well.
func AtLeast(n int) cobra.PositionalArgs { return counted(func(got int) bool { return got >= n }) }

func counted(right func(int) bool) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if !right(len(args)) {
			return exit.Usage(c.CommandPath()+" --help", "expected `%s`, got %d arguments", c.UseLine(), len(args))
		}
		return nil
	}
}

// Some asks for one argument at least.
func Some(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return exit.Usage(c.CommandPath()+" --help", "expected `%s`, got no arguments", c.UseLine())
	}
	return nil
}

// completionLimit bounds what a completion may take: somebody waits with a finger on the key.
const completionLimit = 2 * time.Second

// Complete asks the datacenter for what a word can be completed to; whatever goes wrong, nothing is proposed.
func (e *Env) Complete(c *cobra.Command,
	words func(context.Context, *client.Client) []string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completionLimit)
	defer cancel()
	cl, err := e.Client(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return words(ctx, cl), cobra.ShellCompDirectiveNoFileComp
}
