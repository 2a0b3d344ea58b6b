package kube

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/kubernetes"
)

// API is the path of clusters at the gateway.
const API = "/kubernetes/v1/clusters"

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// CheckName says what a cluster's name may be before it becomes part of a path.
func CheckName(name string) error {
	if !clusterName.MatchString(name) || len(name) > kubernetes.MaxName {
		return exit.Usage("", "%q cannot be a cluster's name: at most %d lower-case letters, digits and dashes, with no "+
			"dash at its ends",
			name, kubernetes.MaxName)
	}
	return nil
}

// Path is the API's path of a cluster, or of something of it.
func Path(name string, of ...string) string {
	return API + "/" + url.PathEscape(name) + strings.Join(append([]string{""}, of...), "/")
}

// Get asks for one cluster; b is the answer as it came.
func Get(ctx context.Context, cl *client.Client, name, query string) (view kubernetes.View, b []byte, err error) {
	if err := CheckName(name); err != nil {
		return view, nil, err
	}
	b, err = cl.Get(ctx, Path(name)+query, &view)
	if e, ok := errors.AsType[*exit.Error](err); ok && e.Code == exit.NotFound && e.Next == "" {
		e.Next = "marina cluster list"
	}
	return view, b, err
}

// List asks for all of them; b is the answer as it came.
func List(ctx context.Context, cl *client.Client) (views []kubernetes.View, b []byte, err error) {
	var answer struct {
		Clusters []kubernetes.View `json:"clusters"`
	}
	b, err = cl.Get(ctx, API, &answer)
	return answer.Clusters, b, err
}

// Create makes a cluster that must not exist.
func Create(ctx context.Context, cl *client.Client, d *kubernetes.Definition) (k kubernetes.View, err error) {
	b, err := cl.Call(ctx, http.MethodPost, API, d)
	if err != nil {
		return k, err
	}
	return k, client.Unmarshal(b, &k)
}

// Put writes a definition and tells whether the cluster is new.
func Put(ctx context.Context, cl *client.Client, d *kubernetes.Definition) (k kubernetes.View,
	created bool, err error) {
	status, b, err := cl.Send(ctx, http.MethodPut, Path(d.Name), d)
	if err != nil {
		return k, false, err
	}
	return k, status == http.StatusCreated, client.Unmarshal(b, &k)
}

// Versions lists what --version can be; b is the answer as it came.
func Versions(ctx context.Context, cl *client.Client) (all []kubernetes.VersionView, b []byte, err error) {
	var answer struct {
		Versions []kubernetes.VersionView `json:"versions"`
	}
	b, err = cl.Get(ctx, "/kubernetes/v1/versions", &answer)
	return answer.Versions, b, err
}

// Events lists what is remembered of a cluster; b is the answer as it came.
func Events(ctx context.Context, cl *client.Client, name string) (all []kubernetes.Event, b []byte, err error) {
	var answer struct {
		Events []kubernetes.Event `json:"events"`
	}
	b, err = cl.Get(ctx, Path(name, "events"), &answer)
	return answer.Events, b, err
}

func names(ctx context.Context, cl *client.Client) (out []string) {
	all, _, err := List(ctx, cl)
	if err != nil {
		return nil
	}
	for _, k := range all {
		out = append(out, k.Name)
	}
	return out
}

// CompleteOne completes one cluster's name.
func CompleteOne(e *command.Env) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return e.Complete(c, names)
	}
}

// CompleteMore completes the names of further clusters.
func CompleteMore(e *command.Env) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return e.Complete(c, func(ctx context.Context, cl *client.Client) []string {
			return slices.DeleteFunc(names(ctx, cl), func(name string) bool { return slices.Contains(args, name) })
		})
	}
}

// CompleteList completes the last of names with commas between them.
func CompleteList(e *command.Env) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		before := word[:strings.LastIndexByte(word, ',')+1]
		words, directive := e.Complete(c, names)
		for i := range words {
			words[i] = before + words[i]
		}
		return words, directive | cobra.ShellCompDirectiveNoSpace
	}
}

// CompleteVersions completes a version of Kubernetes.
func CompleteVersions(e *command.Env) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return e.Complete(c, func(ctx context.Context, cl *client.Client) (out []string) {
			all, _, err := Versions(ctx, cl)
			if err != nil {
				return nil
			}
			for _, k := range all {
				out = append(out, k.Minor)
			}
			return out
		})
	}
}
