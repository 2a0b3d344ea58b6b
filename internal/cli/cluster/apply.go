package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

func apply(e *command.Env) *cobra.Command {
	var file string
	var p patience
	c := &cobra.Command{Use: "apply -f FILE", Short: "Make clusters what a file says (- reads standard input)",
		Args: command.Exactly(0),
		Long: "Reads definitions in JSON or YAML: one, a list of them, or several documents. Each cluster is created if " +
			"it is new, else\n" +
			"changed to what the file says; applying it again changes nothing. What cluster show --json prints can be edited " +
			"and applied.",
		Example: "  marina cluster apply -f - --wait <<EOF\n  name: demo\n  nodes: {count: 2, cpus: 1, mem: 2048}\n  EOF",
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return exit.Usage("marina cluster apply -f FILE", "which file? - is standard input")
			}
			all, err := definitions(e, file)
			if err != nil {
				return err
			}
			return applyClusters(c.Context(), e, all, &p)
		}}
	c.Flags().StringVarP(&file, "file", "f", "", "file of definitions")
	p.flags(c, false, "wait until all of them are ready")
	return c
}

func applyClusters(ctx context.Context, e *command.Env, all []kubernetes.Definition, p *patience) error {
	cl, err := e.Client(ctx)
	if err != nil {
		return err
	}
	var views []kubernetes.View
	var before []string
	for i := range all {
		k, created, err := kube.Put(ctx, cl, &all[i])
		if e, ok := errors.AsType[*exit.Error](err); ok {
			e.Message = "cluster " + all[i].Name + ": " + e.Message
			if len(before) > 0 {
				e.Message += "; applied before it: " + strings.Join(before, ", ")
			}
		}
		if err != nil {
			return err
		}
		if before = append(before, k.Name); created && !e.JSON && !e.Quiet {
			fmt.Fprintln(e.Out, output.Clean("created "+k.Name))
		}
		views = append(views, k)
	}
	return settle(ctx, e, cl, p, "applied %s", views...)
}

// maxDefinition bounds a file of definitions.
const maxDefinition = 8 << 20

// definitions reads a file of clusters. Nothing of it is believed before all of it is.
func definitions(e *command.Env, file string) ([]kubernetes.Definition, error) {
	in := e.In
	if file != "-" {
		f, err := e.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxDefinition))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	docs, err := documents(b)
	if err != nil {
		return nil, exit.Usage("", "%s is neither JSON nor YAML: %v", file, err)
	}
	var all []kubernetes.Definition
	named := map[string]bool{}
	for i, doc := range docs {
		where := file
		if len(docs) > 1 {
			where = fmt.Sprintf("%s, cluster %d", file, i+1)
		}
		d, err := definitionOf(doc)
		if err == nil && named[d.Name] {
			err = fmt.Errorf("%s is defined twice", d.Name)
		}
		if err == nil {
			err = kube.CheckName(d.Name)
		}
		if err != nil {
			return nil, exit.Usage("", "%s: %v", where, err)
		}
		named[d.Name] = true
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, exit.Usage("", "%s defines no cluster", file)
	}
	return all, nil
}

// documents takes a file apart into the JSON of single clusters: of a list, of {"clusters": [...]}, of several YAML
// documents.
func documents(b []byte) ([]json.RawMessage, error) {
	var out []json.RawMessage
	if json.Valid(b) {
		return flatten(b)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		versionsAreText(&node)
		var doc any
		if err := node.Decode(&doc); err != nil {
			return nil, err
		}
		if doc == nil {
			continue
		}
		j, err := json.Marshal(doc)
		if err != nil {
			return nil, err
		}
		list, err := flatten(j)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
}

// versionsAreText keeps YAML from reading 1.40 as the number 1.4.
func versionsAreText(n *yaml.Node) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Value == "version" && c.Kind == yaml.ScalarNode {
			c.Tag = "!!str"
		}
		versionsAreText(c)
	}
}

// flatten returns the elements of a list, or of what the API answers to a list; else the document itself.
func flatten(b []byte) ([]json.RawMessage, error) {
	var list []json.RawMessage
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) {
		return list, json.Unmarshal(b, &list)
	}
	var of struct {
		Clusters []json.RawMessage `json:"clusters"`
	}
	if json.Unmarshal(b, &of) == nil && of.Clusters != nil {
		return of.Clusters, nil
	}
	return []json.RawMessage{b}, nil
}

// definitionOf reads one cluster. What the API shows of a cluster is a definition too; the rest of it is left out.
func definitionOf(doc json.RawMessage) (kubernetes.Definition, error) {
	var k kubernetes.View
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	err := dec.Decode(&k)
	if bad, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := strings.TrimPrefix(bad.Field, "Definition.")
		hint := ""
		if bad.Type.Kind().String() == "float64" {
			hint = "; memory and disk are MiB: 2048 is 2Gi"
		}
		return k.Definition, fmt.Errorf("%q is a %s and should be a %s%s", field, bad.Value, kindOf(bad), hint)
	}
	if err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return k.Definition, fmt.Errorf("there is no field %s; those there are: name, group, version, nodes {count, "+
				"cpus, mem, disk}, "+
				"controlPlane {cpus, mem, disk}, podCIDR, serviceCIDR, audit, encryption, privileged", name)
		}
		return k.Definition, err
	}
	if k.Name == "" {
		return k.Definition, errors.New(`it has no "name"`)
	}
	return k.Definition, nil
}

// kindOf names what a field should be, in JSON's words.
func kindOf(bad *json.UnmarshalTypeError) string {
	switch bad.Type.Kind().String() {
	case "float64", "int":
		return "number"
	case "bool":
		return "boolean"
	case "string":
		return "string"
	}
	return "object"
}
