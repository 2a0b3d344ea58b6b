package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/kubeconfig"
)

// access holds the flags of `marina cluster kubeconfig`.
type access struct {
	print, use, remove bool
	output             string
	ttl                time.Duration
}

func kubeconfigCommand(e *command.Env) *cobra.Command {
	var a access
	c := &cobra.Command{Use: "kubeconfig NAME", Short: "Get the way into a cluster: put it into your kubeconfig",
		Args: command.Exactly(1),
		Long: "Makes a client certificate for the cluster and puts it into the first file of $KUBECONFIG, or " +
			"~/.kube/config, as the context\n" +
			"marina-NAME; everything else in it stays. It becomes the current context with --use, or if there is none.",
		ValidArgsFunction: kube.CompleteOne(e), RunE: func(c *cobra.Command, args []string) error {
			if err := kube.CheckName(args[0]); err != nil {
				return err
			}
			ways := 0
			for _, b := range []bool{a.print, a.output != "", a.remove, a.use} {
				if b {
					ways++
				}
			}
			if ways > 1 {
				return exit.Usage("", "--print, --output, --remove and --use exclude each other")
			}
			if a.remove {
				return removeKubeconfig(e, args[0])
			}
			cl, err := e.Client(c.Context())
			if err != nil {
				return err
			}
			if a.print || a.output != "" {
				return writeKubeconfig(c.Context(), e, cl, args[0], a)
			}
			m, err := mergeKubeconfig(c.Context(), e, cl, args[0], a)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.Document(m)
			}
			sayMerged(e, m)
			return nil
		}}
	f := c.Flags()
	f.BoolVar(&a.print, "print", false, "print it and change no file")
	f.StringVarP(&a.output, "output", "o", "", "write it to a file of its own")
	f.BoolVar(&a.use, "use", false, "make it the current context")
	f.BoolVar(&a.remove, "remove", false, "take the cluster out of your kubeconfig")
	f.DurationVar(&a.ttl, "ttl", 0, "how long its certificate is good, 720h; default: what the datacenter gives")
	return c
}

// maxKubeconfig bounds a kubeconfig that is taken from the datacenter.
const maxKubeconfig = 1 << 20

// fetchKubeconfig asks for a cluster's kubeconfig.
func fetchKubeconfig(ctx context.Context, cl *client.Client, name string, ttl time.Duration) ([]byte, error) {
	path := kube.Path(name, "kubeconfig")
	if ttl < 0 {
		return nil, exit.Usage("--ttl 720h", "a certificate cannot be good for %s", ttl)
	}
	if ttl > 0 {
		path += "?ttl=" + url.QueryEscape(ttl.String())
	}
	resp, err := cl.Read(ctx, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxKubeconfig))
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of %s: %w", name, err)
	}
	return b, nil
}

// writeKubeconfig prints a cluster's kubeconfig or writes it to a file of its own.
func writeKubeconfig(ctx context.Context, e *command.Env, cl *client.Client, name string, a access) error {
	b, err := fetchKubeconfig(ctx, cl, name, a.ttl)
	if err != nil {
		return err
	}
	if e.JSON { // kubectl reads JSON as well
		var doc any
		if err := yaml.Unmarshal(b, &doc); err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", name, err)
		}
		if b, err = json.MarshalIndent(doc, "", "  "); err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", name, err)
		}
		b = append(b, '\n')
	}
	if a.print {
		_, err = e.Out.Write(b)
		return err
	}
	if err := kubeconfig.ReplaceFile(a.output, b); err != nil {
		return err
	}
	if !e.Quiet && !e.JSON {
		fmt.Fprintf(e.Out, "wrote %s (use it: kubectl --kubeconfig %s get nodes)\n", a.output, a.output)
	}
	return nil
}

// merged describes a changed kubeconfig to --json.
type merged struct {
	File    string `json:"file"`
	Context string `json:"context"`
	Current bool   `json:"current"`
}

// mergeKubeconfig puts a cluster into the user's kubeconfig.
func mergeKubeconfig(ctx context.Context, e *command.Env, cl *client.Client, name string, a access) (merged, error) {
	m := merged{Context: kubeconfig.ContextOf(name)}
	b, err := fetchKubeconfig(ctx, cl, name, a.ttl)
	if err != nil {
		return m, err
	}
	m.File, m.Current, err = kubeconfig.Merge(ctx, b, m.Context, a.use)
	return m, err
}

// sayMerged tells a person how the cluster is reached now.
func sayMerged(e *command.Env, m merged) {
	switch {
	case e.Quiet:
	case m.Current:
		fmt.Fprintf(e.Out, "%s is the current context of %s (use it: kubectl get nodes)\n", m.Context, m.File)
	default:
		fmt.Fprintf(e.Out, "%s is a context of %s (use it: kubectl --context %s get nodes)\n", m.Context, m.File, m.Context)
	}
}

func removeKubeconfig(e *command.Env, name string) error {
	files, err := kubeconfig.Remove(kubeconfig.ContextOf(name), "")
	if err != nil {
		return err
	}
	if e.JSON {
		return e.Document(map[string]any{"context": kubeconfig.ContextOf(name), "files": append([]string{}, files...)})
	}
	for _, f := range files {
		fmt.Fprintf(e.Out, "removed %s from %s\n", kubeconfig.ContextOf(name), f)
	}
	if len(files) == 0 && !e.Quiet {
		fmt.Fprintf(e.Out, "%s is in no kubeconfig of yours\n", kubeconfig.ContextOf(name))
	}
	return nil
}

// commandLimit is the lifetime of the certificate of a single kubectl command; a command that outlives it goes on,
// since a certificate is shown when a connection begins.
const commandLimit = 12 * time.Hour

func kubectlCommand(e *command.Env) *cobra.Command {
	c := &cobra.Command{Use: "kubectl NAME -- ARG...", Short: "Run kubectl on a cluster; its exit code is this command's",
		Long: "Runs the kubectl that Marina brings for the cluster's version, or the one in PATH, as an administrator of " +
			"the cluster. Your\n" +
			"kubeconfig is neither read nor changed. Marina's own flags stand before NAME.",
		Example: "  marina cluster kubectl demo -- get pods -A",
		Args:    command.Some, ValidArgsFunction: kube.CompleteOne(e), RunE: func(c *cobra.Command, args []string) error {
			if err := kube.CheckName(args[0]); err != nil {
				return err
			}
			name, args := args[0], args[1:]
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
			return kubectl(c.Context(), e, name, args)
		}}
	c.Flags().SetInterspersed(false) // what stands behind NAME is kubectl's
	return c
}

func kubectl(ctx context.Context, e *command.Env, name string, args []string) error {
	cl, err := e.Client(ctx)
	if err != nil {
		return err
	}
	k, _, err := kube.Get(ctx, cl, name, "")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv, err := findKubectl(filepath.Dir(self), k.Version)
	if err != nil {
		return err
	}
	b, err := fetchKubeconfig(ctx, cl, name, commandLimit)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "marina-kubectl-") // mode 0700
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	argv = append(argv, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.In, e.Out, e.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.Status(max(e.ExitCode(), 1))
	}
	if err != nil {
		return fmt.Errorf("kubectl: %w", err)
	}
	return nil
}

// findKubectl looks for the program of a minor ("1.37") where a checkout and a release have it, for that of another
// minor, and for a kubectl in PATH. dir is the directory of this program.
func findKubectl(dir, minor string) ([]string, error) {
	for _, m := range []string{"v" + minor, "v*"} {
		for _, pattern := range []string{filepath.Join(dir, "..", "bundle", "kubernetes", m, "bin"),
			filepath.Join(dir, "kubernetes", m),
			filepath.Join("/usr/local/lib/marina/kubernetes", m), filepath.Join("/usr/lib/marina/kubernetes", m)} {
			found, err := filepath.Glob(filepath.Join(pattern, "kubernetes-"+m))
			if err != nil {
				return nil, err
			}
			if len(found) > 0 {
				slices.SortFunc(found, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
				return []string{found[len(found)-1], "kubectl"}, nil
			}
		}
	}
	if path, err := exec.LookPath("kubectl"); err == nil {
		return []string{path}, nil
	}
	return nil, &exit.Error{Code: exit.Failed, Message: "there is no kubectl on this machine, neither Marina's nor one " +
		"in PATH",
		Next: "make -C bundle/kubernetes v" + minor + ", or install kubectl"}
}
