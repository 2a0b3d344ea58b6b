package token

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/output"
)

// API is the path of tokens at the gateway.
const API = "/acs/api/v1/tokens"

// Command is the noun with its verbs.
func Command(e *command.Env) *cobra.Command {
	return command.Group("token", "Tokens that open the datacenter's door", create(e), list(e), revoke(e), ca(e))
}

func create(e *command.Env) *cobra.Command {
	var ttl time.Duration
	var description string
	c := &cobra.Command{Use: "create", Short: "Make a token", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.Call(c.Context(), http.MethodPost, API,
				map[string]any{"description": description, "ttlSeconds": int64(ttl.Seconds())})
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			var t struct {
				Token   string    `json:"token"`
				ID      string    `json:"id"`
				Expires time.Time `json:"expires"`
			}
			if err := client.Unmarshal(b, &t); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, t.Token)
			if !e.Quiet {
				fmt.Fprintf(e.Err, "token %s, good until %s; use it: curl -H \"Authorization: token=$TOKEN\" ...\n",
					t.ID, t.Expires.Local().Format(time.DateTime))
			}
			return nil
		}}
	c.Flags().DurationVar(&ttl, "ttl", 5*24*time.Hour, "how long it is good")
	c.Flags().StringVar(&description, "description", "", "what it is for")
	return c
}

func list(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the tokens that are good", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			var answer struct {
				Array []struct {
					ID          string    `json:"id"`
					UID         string    `json:"uid"`
					Description string    `json:"description"`
					Issued      time.Time `json:"issued"`
					Expires     time.Time `json:"expires"`
				} `json:"array"`
			}
			b, err := cl.Get(c.Context(), API, &answer)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Raw(b)
			}
			rows := [][]string{}
			for _, t := range answer.Array {
				rows = append(rows, []string{t.ID, t.UID, output.Ago(t.Issued) + " ago", t.Expires.Local().Format(time.DateTime),
					t.Description})
			}
			e.Table([]string{"ID", "USER", "ISSUED", "EXPIRES", "DESCRIPTION"}, rows)
			return nil
		}}
}

func revoke(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "revoke ID", Short: "Make a token worthless", Args: command.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			if _, err := cl.Call(c.Context(), http.MethodDelete, API+"/"+url.PathEscape(args[0]), nil); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, "revoked", args[0])
			return nil
		}}
}

func ca(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "ca", Short: "Print the datacenter's CA certificate", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			fmt.Fprint(e.Out, cl.CA)
			return nil
		}}
}
