package cli

import "github.com/spf13/cobra"

// tree is every command there is, as cobra has it when it runs.
func tree() *cobra.Command {
	root := (&invocation{}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}
