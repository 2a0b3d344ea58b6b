package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kernel"
)

// upload sends an image archive to a path of the API and shows how far it is.
func upload(ctx context.Context, e *command.Env, cl *client.Client, path, file, name string) ([]byte, error) {
	f, err := e.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var total int64
	if fi, err := f.Stat(); err == nil {
		total = fi.Size()
	}
	p := e.Progress()
	defer p.Done()
	if name != "" {
		path += "?name=" + url.QueryEscape(name)
	}
	body := &counter{r: f, each: func(n int64) {
		if !p.Drawn() || total <= 0 {
			return
		}
		p.Show("loading [%s] %s of %s", output.Bar(int(n>>10), int(total>>10)), kernel.FormatBytes(n),
			kernel.FormatBytes(total))
		if n == total {
			p.Show("sent %s, the datacenter takes it in", kernel.FormatBytes(total))
		}
	}}
	resp, err := cl.Request(ctx, http.MethodPost, path, body, "application/x-tar")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, client.MaxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, client.AnswerError(resp.StatusCode, b)
	}
	return b, nil
}

// counter tells how much was read of r.
type counter struct {
	r    io.Reader
	n    int64
	each func(int64)
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.each(c.n)
	return n, err
}

// uploadTo sends an image archive to clusters, one after the other. No cluster gets it before every name is one.
func uploadTo(ctx context.Context, e *command.Env, cl *client.Client, file, name string, to []string) error {
	if len(to) == 0 {
		return exit.Usage("--cluster NAME", "which cluster?")
	}
	for _, k := range to {
		if err := kube.CheckName(k); err != nil {
			return err
		}
	}
	if file == "-" && len(to) > 1 {
		return exit.Usage("", "standard input can be sent once: save the archive, or name one cluster")
	}
	answers := map[string]json.RawMessage{}
	for i, k := range to {
		b, err := upload(ctx, e, cl, kube.Path(k, "images"), file, name)
		if err, ok := errors.AsType[*exit.Error](err); ok {
			err.Message = "cluster " + k + ": " + err.Message
			if i > 0 {
				err.Message += "; loaded into " + strings.Join(to[:i], ", ")
			}
		}
		if err != nil {
			return err
		}
		answers[k] = b
		if err := printLoaded(e, k, b); err != nil {
			return err
		}
	}
	switch {
	case !e.JSON:
		return nil
	case len(to) == 1:
		return e.Raw(answers[to[0]])
	}
	return e.Document(answers)
}

// printLoaded says what a cluster took in.
func printLoaded(e *command.Env, cluster string, b []byte) error {
	var answer struct {
		Images []string `json:"images"`
		Nodes  int      `json:"nodes"`
	}
	if err := client.Unmarshal(b, &answer); err != nil {
		return err
	}
	if e.JSON || e.Quiet {
		return nil
	}
	for _, image := range answer.Images {
		fmt.Fprintf(e.Out, "loaded %s into %s: %s\n", output.Clean(image), cluster, output.Plural(answer.Nodes, "node"))
	}
	return nil
}
