package check

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/marinaos/marina/internal/agent/locks"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// FirstJitter is the time over which the first checks of many fresh tasks are spread, and the shortest wait after a
// check that fails early.
const FirstJitter = 100 * time.Millisecond

const (
	maxCheckBody   = 4 << 10 // bytes of an answer that are read
	maxCheckOutput = 512     // bytes of a command's output that are told
)

// Repeat runs one check again and again: first after a while, then at its interval from start to start, jittered so
// that many do not come together. Until eager, while failures do not count, it asks sooner after each failure, so that
// a task gets traffic as soon as it can serve and not an interval later. It ends with ctx, or when nobody takes an
// outcome.
func Repeat(ctx context.Context, c *kernel.Check, first time.Duration, eager time.Time, s locks.Slots,
	probe func(context.Context) Outcome, tell func(Outcome) bool) {
	next := time.Now().Add(first)
	for soon := FirstJitter; retry.Pause(ctx, time.Until(next)); soon *= 2 {
		if s.Take(ctx) != nil {
			return
		}
		begun := time.Now()
		next = begun.Add(c.Interval - c.Interval/20 + rand.N(c.Interval/10+1))
		pctx, cancel := context.WithTimeout(ctx, c.Timeout)
		o := probe(pctx)
		if !o.OK && pctx.Err() != nil {
			o.Cause = fmt.Sprintf("no answer within %s", c.Timeout)
		}
		cancel()
		s.Give()
		o.At = time.Now().UTC()
		if o.OK {
			eager = time.Time{}
		} else if begun.Before(eager) {
			next = begun.Add(min(soon, next.Sub(begun)))
		}
		if len(o.Cause) > kernel.MaxMessage {
			o.Cause = o.Cause[:kernel.MaxMessage]
		}
		if ctx.Err() != nil || !tell(o) {
			return
		}
	}
}

// Prober asks tasks.
type Prober struct {
	// Exec runs a command in a container, as runtime.Runtime does.
	Exec func(ctx context.Context, container string, e runtime.Exec) (code int, err error)
}

// Probe asks once. The address is the task's, for checks that are asked over the network; the container for commands.
func (p Prober) Probe(ctx context.Context, c *kernel.Check, container string, addr netip.Addr, port uint16) Outcome {
	at := netip.AddrPortFrom(addr, port).String()
	switch c.Kind {
	case kernel.CheckHTTP, kernel.CheckHTTPS:
		return probeHTTP(ctx, c, at)
	case kernel.CheckTCP:
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", at)
		if err != nil {
			return Outcome{Cause: err.Error()}
		}
		conn.Close()
		return Outcome{OK: true}
	case kernel.CheckCommand:
		return p.command(ctx, c, container)
	}
	return Outcome{Ignore: true}
}

func probeHTTP(ctx context.Context, c *kernel.Check, at string) Outcome {
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // as DC/OS does: it asks whether it answers, not who
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	url := string(c.Kind) + "://" + at + "/" + strings.TrimPrefix(c.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Outcome{Cause: fmt.Sprintf("path %q: %v", c.Path, err)}
	}
	req.Header.Set("User-Agent", "marina-health-check")
	res, err := client.Do(req)
	if err != nil {
		return Outcome{Cause: err.Error()}
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxCheckBody)); err != nil {
		return Outcome{Cause: err.Error()}
	}
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 400:
		return Outcome{OK: true}
	case res.StatusCode < 200 && c.Ignore1xx:
		return Outcome{Ignore: true}
	}
	return Outcome{Cause: fmt.Sprintf("answered %s", res.Status)}
}

func (p Prober) command(ctx context.Context, c *kernel.Check, container string) Outcome {
	argv := c.Argv
	if c.Shell != "" {
		argv = []string{"/bin/sh", "-c", c.Shell}
	}
	var out head
	code, err := p.Exec(ctx, container, runtime.Exec{Argv: argv, Stdout: &out, Stderr: &out})
	switch {
	case err != nil:
		return Outcome{Cause: err.Error()}
	case code != 0:
		return Outcome{Cause: fmt.Sprintf("exited with %d: %s", code, out.String())}
	}
	return Outcome{OK: true}
}

// head keeps the first bytes of what is written to it. The runtime may write from two goroutines.
type head struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b.Write(p[:min(len(p), maxCheckOutput-h.b.Len())])
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.ToValidUTF8(strings.TrimSpace(h.b.String()), "?")
}
