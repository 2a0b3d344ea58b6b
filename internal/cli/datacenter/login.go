package datacenter

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
)

// login is `marina login`.
func login(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "login URL", Short: "Remember a datacenter and a token for it", Args: command.Exactly(1),
		Long: "Saves the address, the token (--token or MARINA_TOKEN) and the CA certificate (--ca) for later commands of " +
			"this user.",
		RunE: func(c *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[0], "https://") {
				return exit.Usage("marina login https://HOST:8443", "%q is not an https address", args[0])
			}
			file, err := client.LoginFile()
			if err != nil {
				return err
			}
			o := e.Options
			o.URL = args[0]
			cl, err := o.Client(c.Context())
			if err != nil {
				return err
			}
			if cl.Token == "" {
				return exit.Usage("MARINA_TOKEN=... marina login "+args[0],
					"a token is needed; `marina token create` on the datacenter's machine makes one")
			}
			if _, err := cl.Call(c.Context(), http.MethodGet, marathon.API+"/info", nil); err != nil {
				return err
			}
			if err := cl.Save(file); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, "logged in to", cl.URL)
			return nil
		}}
}
