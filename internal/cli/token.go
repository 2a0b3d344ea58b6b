package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (v *invocation) tokenCommand() *cobra.Command {
	var ttl time.Duration
	var description string
	create := &cobra.Command{Use: "create", Short: "Make a token", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		b, err := cl.call(c.Context(), http.MethodPost, "/acs/api/v1/tokens",
			map[string]any{"description": description, "ttlSeconds": int64(ttl.Seconds())})
		if err != nil {
			return err
		}
		if v.json {
			return v.raw(b)
		}
		var t struct {
			Token   string    `json:"token"`
			ID      string    `json:"id"`
			Expires time.Time `json:"expires"`
		}
		if err := unmarshal(b, &t); err != nil {
			return err
		}
		fmt.Fprintln(v.out, t.Token)
		if !v.quiet {
			fmt.Fprintf(v.err, "token %s, good until %s; use it: curl -H \"Authorization: token=$TOKEN\" ...\n", t.ID, t.Expires.Local().Format(time.DateTime))
		}
		return nil
	}}
	create.Flags().DurationVar(&ttl, "ttl", 5*24*time.Hour, "how long it is good")
	create.Flags().StringVar(&description, "description", "", "what it is for")

	list := &cobra.Command{Use: "list", Short: "List the tokens that are good", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
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
		b, err := cl.get(c.Context(), "/acs/api/v1/tokens", &answer)
		if err != nil {
			return err
		}
		if v.json {
			return v.raw(b)
		}
		rows := [][]string{}
		for _, t := range answer.Array {
			rows = append(rows, []string{t.ID, t.UID, ago(t.Issued) + " ago", t.Expires.Local().Format(time.DateTime), t.Description})
		}
		v.table([]string{"ID", "USER", "ISSUED", "EXPIRES", "DESCRIPTION"}, rows)
		return nil
	}}
	revoke := &cobra.Command{Use: "revoke ID", Short: "Make a token worthless", Args: exactly(1), RunE: func(c *cobra.Command, args []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		if _, err := cl.call(c.Context(), http.MethodDelete, "/acs/api/v1/tokens/"+url.PathEscape(args[0]), nil); err != nil {
			return err
		}
		fmt.Fprintln(v.out, "revoked", args[0])
		return nil
	}}
	ca := &cobra.Command{Use: "ca", Short: "Print the datacenter's CA certificate", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		fmt.Fprint(v.out, cl.CA)
		return nil
	}}
	return group("token", "Tokens that open the datacenter's door", create, list, revoke, ca)
}

func (v *invocation) loginCommand() *cobra.Command {
	return &cobra.Command{Use: "login URL", Short: "Remember a datacenter and a token for it", Args: exactly(1),
		Long: "Saves the address, the token (--token or MARINA_TOKEN) and the CA certificate (--ca) for later commands of this user.",
		RunE: func(c *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[0], "https://") {
				return usage("marina login https://HOST:8443", "%q is not an https address", args[0])
			}
			file, err := accountFile()
			if err != nil {
				return err
			}
			v.url = args[0]
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			if cl.Token == "" {
				return usage("MARINA_TOKEN=... marina login "+args[0], "a token is needed; `marina token create` on the datacenter's machine makes one")
			}
			if _, err := cl.call(c.Context(), http.MethodGet, marathon+"/info", nil); err != nil {
				return err
			}
			if err := saveAs(file, cl.account); err != nil {
				return err
			}
			fmt.Fprintln(v.out, "logged in to", cl.URL)
			return nil
		}}
}
