package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/marinaos/marina/internal/kernel"
)

// maxDefinition bounds a definition file; the API's own limit is lower.
const maxDefinition = 8 << 20

// definition reads a service definition and its id.
func (v *invocation) definition(file string) (def []byte, id string, err error) {
	f, err := v.open(file)
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
		return nil, "", usage("", "%s is not a JSON service definition: %v", file, err)
	}
	if d.ID == "" {
		return nil, "", usage("", "%s has no \"id\"", file)
	}
	return def, d.ID, nil
}

// upload sends an image archive to a path of the API and shows how far it is.
func (v *invocation) upload(ctx context.Context, cl *client, path, file, name string) ([]byte, error) {
	f, err := v.open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var total int64
	if fi, err := f.Stat(); err == nil {
		total = fi.Size()
	}
	p := v.progress()
	defer p.done()
	q := ""
	if name != "" {
		q = "?name=" + url.QueryEscape(name)
	}
	body := &counter{r: f, each: func(n int64) {
		if p.tty && total > 0 {
			p.show("loading [%s] %s of %s", bar(int(n>>10), int(total>>10)), kernel.FormatBytes(n), kernel.FormatBytes(total))
			if n == total {
				p.show("sent %s, the datacenter takes it in", kernel.FormatBytes(total))
			}
		}
	}}
	resp, err := cl.request(ctx, http.MethodPost, path+q, body, "application/x-tar")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, answerError(resp.StatusCode, b)
	}
	return b, nil
}

// counter tells how much was read of r.
type counter struct {
	r    io.Reader
	n    int64
	each func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.each(c.n)
	return n, err
}

func unmarshal(b []byte, out any) error {
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the answer is not what this version expects: %w", err)
	}
	return nil
}
