package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/marathon"
)

func add(e *command.Env) *cobra.Command {
	var ch marathon.Change
	return ch.Flags(&cobra.Command{Use: "add FILE", Short: "Add a service from its definition (- reads standard input)",
		Long: "Adds a service from Marathon's JSON. A service that exists is a conflict; `marina app update` changes it.",
		Args: command.Exactly(1), RunE: func(c *cobra.Command, args []string) error {
			def, id, err := definition(e, args[0])
			if err != nil {
				return err
			}
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.Call(c.Context(), http.MethodPost, marathon.API+"/apps"+ch.Query(), def)
			if err != nil {
				return err
			}
			return ch.Finish(c.Context(), e, cl, b, "added "+id)
		}})
}

// maxDefinition bounds a definition file; the API's own limit is lower.
const maxDefinition = 8 << 20

// definition reads a service definition and its id.
func definition(e *command.Env, file string) (def []byte, id string, err error) {
	f, err := e.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	def, err = io.ReadAll(io.LimitReader(f, maxDefinition))
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", file, err)
	}
	var d struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(def, &d); err != nil {
		return nil, "", exit.Usage("", "%s is not a JSON service definition: %v", file, err)
	}
	if d.ID == "" {
		return nil, "", exit.Usage("", "%s has no \"id\"", file)
	}
	return def, d.ID, nil
}

func update(e *command.Env) *cobra.Command {
	var ch marathon.Change
	return ch.Flags(&cobra.Command{Use: "update FILE | ID NAME=VALUE...",
		Short: "Change a service: apply its definition (adding it if new), or set single fields",
		Long: "With a file, the service becomes what the file says, and is added if it is new; applying it again changes " +
			"nothing.\n" +
			"With an id, single fields are set: marina app update /hello instances=5 env.GREETING=Hi",
		Args: command.AtLeast(1), RunE: func(c *cobra.Command, args []string) error {
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return apply(c.Context(), e, cl, args[0], &ch)
			}
			fields, err := patch(c.Context(), cl, args[0], args[1:])
			if err != nil {
				return err
			}
			b, err := cl.Call(c.Context(), http.MethodPatch, marathon.AppPath(args[0])+ch.Query(), fields)
			if err != nil {
				return err
			}
			return ch.Finish(c.Context(), e, cl, b, "updated "+args[0])
		}})
}

// apply makes a service what a file says.
func apply(ctx context.Context, e *command.Env, cl *client.Client, file string, ch *marathon.Change) error {
	def, id, err := definition(e, file)
	if err != nil {
		return err
	}
	path := marathon.AppPath(id) + "?partialUpdate=false"
	if ch.Forced() {
		path += "&force=true"
	}
	b, err := cl.Call(ctx, http.MethodPut, path, def)
	if err != nil {
		return err
	}
	return ch.Finish(ctx, e, cl, b, "updated "+id)
}

// patch makes a partial update of NAME=VALUE; maps (env, labels) are sent whole, so the current ones are read first.
func patch(ctx context.Context, cl *client.Client, id string, sets []string) (map[string]any, error) {
	fields := map[string]any{}
	var now struct {
		App map[string]any `json:"app"`
	}
	for _, set := range sets {
		name, value, ok := strings.Cut(set, "=")
		if !ok || name == "" {
			return nil, exit.Usage("marina app update --help", "%q is not NAME=VALUE", set)
		}
		var parsed any = value
		field, key, nested := strings.Cut(name, ".")
		if !nested {
			var number any
			if json.Unmarshal([]byte(value), &number) == nil {
				parsed = number
			}
			fields[name] = parsed
			continue
		}
		if now.App == nil {
			if _, err := cl.Get(ctx, marathon.AppPath(id), &now); err != nil {
				return nil, err
			}
		}
		m, ok := fields[field].(map[string]any)
		if !ok {
			if m, ok = now.App[field].(map[string]any); !ok {
				m = map[string]any{}
			}
		}
		m[key] = value
		fields[field] = m
	}
	return fields, nil
}

func scale(e *command.Env) *cobra.Command {
	var ch marathon.Change
	return ch.Flags(&cobra.Command{Use: "scale ID COUNT", Short: "Change how many instances run", Args: command.Exactly(2),
		ValidArgsFunction: marathon.CompleteApps(e), RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return exit.Usage("marina app scale "+args[0]+" 3", "%q is not a number of instances", args[1])
			}
			return send(c.Context(), e, &ch, http.MethodPatch, marathon.AppPath(args[0])+ch.Query(),
				map[string]int{"instances": n},
				fmt.Sprintf("scaled %s to %d", args[0], n))
		}})
}

func restart(e *command.Env) *cobra.Command {
	var ch marathon.Change
	return ch.Flags(&cobra.Command{Use: "restart ID", Short: "Replace all instances, rolling", Args: command.Exactly(1),
		ValidArgsFunction: marathon.CompleteApps(e), RunE: func(c *cobra.Command, args []string) error {
			return send(c.Context(), e, &ch, http.MethodPost, marathon.AppPath(args[0])+"/restart"+ch.Query(), nil,
				"restarted "+args[0])
		}})
}

func remove(e *command.Env) *cobra.Command {
	var ch marathon.Change
	return ch.Flags(&cobra.Command{Use: "remove ID", Short: "Stop all instances and forget the service",
		Args:              command.Exactly(1),
		ValidArgsFunction: marathon.CompleteApps(e), RunE: func(c *cobra.Command, args []string) error {
			path := marathon.AppPath(args[0]) + "?force=" + strconv.FormatBool(ch.Forced())
			return send(c.Context(), e, &ch, http.MethodDelete, path, nil, "removed "+args[0])
		}})
}

// send makes a change of one request.
func send(ctx context.Context, e *command.Env, ch *marathon.Change, method, path string, in any, done string) error {
	cl, err := e.Client(ctx)
	if err != nil {
		return err
	}
	b, err := cl.Call(ctx, method, path, in)
	if err != nil {
		return err
	}
	return ch.Finish(ctx, e, cl, b, done)
}
