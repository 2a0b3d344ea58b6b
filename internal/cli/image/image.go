package image

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kernel"
)

// API is the path of images at the gateway.
const API = "/images/v1"

// Command is the noun with its verbs.
func Command(e *command.Env) *cobra.Command {
	return command.Group("image", "Images that tasks run from", list(e), load(e), remove(e))
}

// images is the API's answer to a list and to a load.
type images struct {
	Images []struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	} `json:"images"`
}

// printImages prints an answer; b is it as it came.
func printImages(e *command.Env, answer *images, b []byte) error {
	if e.JSON {
		return e.Raw(b)
	}
	rows := [][]string{}
	for _, i := range answer.Images {
		name := strings.TrimPrefix(strings.TrimPrefix(i.Name, "docker.io/"), "library/")
		rows = append(rows, []string{name, output.Short(i.Digest, 20), kernel.FormatBytes(i.Size)})
	}
	e.Table([]string{"NAME", "DIGEST", "SIZE"}, rows)
	return nil
}

func list(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the datacenter's images", Args: command.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			var answer images
			b, err := cl.Get(c.Context(), API, &answer)
			if err != nil {
				return err
			}
			return printImages(e, &answer, b)
		}}
}

func load(e *command.Env) *cobra.Command {
	var name string
	var into []string
	c := &cobra.Command{Use: "load FILE", Short: "Load an image from an OCI or docker archive (- reads standard input)",
		Args: command.Exactly(1),
		Long: "Loads an image for services, or with --cluster into the nodes of clusters, where pods use it by its name.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			if c.Flags().Changed("cluster") {
				return uploadTo(c.Context(), e, cl, args[0], name, into)
			}
			b, err := upload(c.Context(), e, cl, API, args[0], name)
			if err != nil {
				return err
			}
			var answer images
			if err := client.Unmarshal(b, &answer); err != nil {
				return err
			}
			return printImages(e, &answer, b)
		}}
	c.Flags().StringVar(&name, "name", "", "name the image, if its archive does not or another is wanted")
	c.Flags().StringSliceVar(&into, "cluster", nil, "load it into the nodes of these clusters instead")
	_ = c.RegisterFlagCompletionFunc("cluster", kube.CompleteList(e))
	return c
}

func remove(e *command.Env) *cobra.Command {
	return &cobra.Command{Use: "remove NAME", Short: "Remove an image; what runs is not affected",
		Args: command.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			if _, err := cl.Call(c.Context(), http.MethodDelete, API+"/"+args[0], nil); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, "removed", args[0])
			return nil
		}}
}
