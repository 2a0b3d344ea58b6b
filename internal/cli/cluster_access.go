package cli

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
)

// access is what somebody wants of a cluster's kubeconfig.
type access struct {
	print, use, remove bool
	output             string
	ttl                time.Duration
}

func (v *invocation) clusterKubeconfig() *cobra.Command {
	var a access
	c := &cobra.Command{Use: "kubeconfig NAME", Short: "Get the way into a cluster: put it into your kubeconfig", Args: exactly(1),
		Long: "Makes a client certificate for the cluster and puts it into the first file of $KUBECONFIG, or ~/.kube/config, as the context\n" +
			"marina-NAME; everything else in it stays. It becomes the current context with --use, or if there is none.",
		ValidArgsFunction: v.completeClusters, RunE: func(c *cobra.Command, args []string) error {
			if err := checkName(args[0]); err != nil {
				return err
			}
			ways := 0
			for _, b := range []bool{a.print, a.output != "", a.remove, a.use} {
				if b {
					ways++
				}
			}
			if ways > 1 {
				return usage("", "--print, --output, --remove and --use exclude each other")
			}
			if a.remove {
				return v.removeKubeconfig(args[0])
			}
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			if a.print || a.output != "" {
				return v.writeKubeconfig(c.Context(), cl, args[0], a)
			}
			m, err := v.mergeKubeconfig(c.Context(), cl, args[0], a)
			if err != nil {
				return err
			}
			if v.json {
				return v.document(m)
			}
			v.sayMerged(m)
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

// kubeconfig asks for a cluster's kubeconfig.
func (c *client) kubeconfig(ctx context.Context, name string, ttl time.Duration) ([]byte, error) {
	path := clusterPath(name, "kubeconfig")
	if ttl < 0 {
		return nil, usage("--ttl 720h", "a certificate cannot be good for %s", ttl)
	}
	if ttl > 0 {
		path += "?ttl=" + url.QueryEscape(ttl.String())
	}
	resp, err := c.read(ctx, path)
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
func (v *invocation) writeKubeconfig(ctx context.Context, cl *client, name string, a access) error {
	b, err := cl.kubeconfig(ctx, name, a.ttl)
	if err != nil {
		return err
	}
	if v.json { // kubectl reads JSON as well
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
		_, err = v.out.Write(b)
		return err
	}
	if err := replaceFile(a.output, b); err != nil {
		return err
	}
	if !v.quiet && !v.json {
		fmt.Fprintf(v.out, "wrote %s (use it: kubectl --kubeconfig %s get nodes)\n", a.output, a.output)
	}
	return nil
}

// merged is what --json says of a kubeconfig that was changed.
type merged struct {
	File    string `json:"file"`
	Context string `json:"context"`
	Current bool   `json:"current"`
}

// mergeKubeconfig puts a cluster into the user's kubeconfig.
func (v *invocation) mergeKubeconfig(ctx context.Context, cl *client, name string, a access) (merged, error) {
	m := merged{Context: contextOf(name)}
	b, err := cl.kubeconfig(ctx, name, a.ttl)
	if err != nil {
		return m, err
	}
	m.File, m.Current, err = mergeContext(ctx, b, m.Context, a.use)
	return m, err
}

// sayMerged tells a person how the cluster is reached now.
func (v *invocation) sayMerged(m merged) {
	switch {
	case v.quiet:
	case m.Current:
		fmt.Fprintf(v.out, "%s is the current context of %s (use it: kubectl get nodes)\n", m.Context, m.File)
	default:
		fmt.Fprintf(v.out, "%s is a context of %s (use it: kubectl --context %s get nodes)\n", m.Context, m.File, m.Context)
	}
}

func (v *invocation) removeKubeconfig(name string) error {
	files, err := removeContext(contextOf(name), "")
	if err != nil {
		return err
	}
	if v.json {
		return v.document(map[string]any{"context": contextOf(name), "files": append([]string{}, files...)})
	}
	for _, f := range files {
		fmt.Fprintf(v.out, "removed %s from %s\n", contextOf(name), f)
	}
	if len(files) == 0 && !v.quiet {
		fmt.Fprintf(v.out, "%s is in no kubeconfig of yours\n", contextOf(name))
	}
	return nil
}

// commandLimit is how long the certificate of a single kubectl command is good; a command that outlives it goes on, since a
// certificate is shown when a connection begins.
const commandLimit = 12 * time.Hour

func (v *invocation) clusterKubectl() *cobra.Command {
	c := &cobra.Command{Use: "kubectl NAME -- ARG...", Short: "Run kubectl on a cluster; its exit code is this command's",
		Long: "Runs the kubectl that Marina brings for the cluster's version, or the one in PATH, as an administrator of the cluster. Your\n" +
			"kubeconfig is neither read nor changed. Marina's own flags stand before NAME.",
		Example: "  marina cluster kubectl demo -- get pods -A",
		Args:    some, ValidArgsFunction: v.completeClusters, RunE: func(c *cobra.Command, args []string) error {
			if err := checkName(args[0]); err != nil {
				return err
			}
			name, args := args[0], args[1:]
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
			return v.kubectl(c.Context(), name, args)
		}}
	c.Flags().SetInterspersed(false) // what stands behind NAME is kubectl's
	return c
}

func (v *invocation) kubectl(ctx context.Context, name string, args []string) error {
	cl, err := v.client(ctx)
	if err != nil {
		return err
	}
	k, _, err := cl.cluster(ctx, name, "")
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
	b, err := cl.kubeconfig(ctx, name, commandLimit)
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
	cmd.Stdin, cmd.Stdout, cmd.Stderr = v.in, v.out, v.err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return &exitCode{max(e.ExitCode(), 1)}
	}
	if err != nil {
		return fmt.Errorf("kubectl: %w", err)
	}
	return nil
}

// findKubectl looks for the program of a minor ("1.37") where a checkout and a release have it, for that of another minor, and for
// a kubectl in PATH. dir is the folder of this program.
func findKubectl(dir, minor string) ([]string, error) {
	for _, m := range []string{"v" + minor, "v*"} {
		for _, pattern := range []string{filepath.Join(dir, "..", "bundle", "kubernetes", m, "bin"), filepath.Join(dir, "kubernetes", m),
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
	return nil, &Error{Code: ExitFailed, Message: "there is no kubectl on this machine, neither Marina's nor one in PATH",
		Next: "make -C bundle/kubernetes v" + minor + ", or install kubectl"}
}

// uploadTo sends an image archive to clusters, one after the other.
func (v *invocation) uploadTo(ctx context.Context, cl *client, file, name string, to []string) error {
	if len(to) == 0 {
		return usage("--cluster NAME", "which cluster?")
	}
	for _, k := range to {
		if err := checkName(k); err != nil {
			return err
		}
	}
	if file == "-" && len(to) > 1 {
		return usage("", "standard input can be sent once: save the archive, or name one cluster")
	}
	answers := map[string]json.RawMessage{}
	for i, k := range to {
		b, err := v.upload(ctx, cl, clusterPath(k, "images"), file, name)
		if e, ok := errors.AsType[*Error](err); ok {
			e.Message = "cluster " + k + ": " + e.Message
			if i > 0 {
				e.Message += "; loaded into " + strings.Join(to[:i], ", ")
			}
		}
		if err != nil {
			return err
		}
		var answer struct {
			Images []string `json:"images"`
			Nodes  int      `json:"nodes"`
		}
		if err := unmarshal(b, &answer); err != nil {
			return err
		}
		if answers[k] = b; v.json || v.quiet {
			continue
		}
		for _, image := range answer.Images {
			fmt.Fprintf(v.out, "loaded %s into %s: %s\n", clean(image), k, plural(answer.Nodes, "node"))
		}
	}
	if v.json && len(to) == 1 {
		return v.raw(answers[to[0]])
	}
	if v.json {
		return v.document(answers)
	}
	return nil
}
