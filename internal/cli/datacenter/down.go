package datacenter

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/command"
)

func (l *local) downCommand() *cobra.Command {
	var wipe, yes bool
	c := &cobra.Command{Use: "down", Short: "Stop the datacenter on this machine, tasks included",
		Args: command.Exactly(0),
		Long: "Stops every task and process of the datacenter on this machine. The state stays: `marina up` brings " +
			"everything back.\n" +
			"With --clean-state the state is removed as well, and nothing of the datacenter is left on the machine.",
		RunE: func(c *cobra.Command, _ []string) error {
			if wipe && !yes {
				if err := l.Confirm("Remove everything under " + l.settings.State +
					"? Services, images and data are lost."); err != nil {
					return err
				}
			}
			progress := l.Err
			if l.Quiet {
				progress = io.Discard
			}
			if wipe {
				return l.programs.Clean(c.Context(), l.settings, progress)
			}
			return l.programs.Down(c.Context(), l.settings, progress)
		}}
	c.Flags().BoolVar(&wipe, "clean-state", false, "remove the state as well")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return l.settingsFlags(c)
}
