package agent

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

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

const (
	maxCheckBody   = 4 << 10 // bytes of an answer that are read
	maxCheckOutput = 512     // bytes of a command's output that are told
	firstJitter    = 100 * time.Millisecond
)

// checked is the outcome of one check of a group's tasks.
type checked struct {
	task, check int
	outcome     outcome
}

// check runs the checks of the group's tasks until ctx ends. The checks of tasks that were there before the agent are
// spread over their intervals.
func (g *group) check(ctx context.Context, fresh bool) {
	for i := range g.spec.Tasks {
		started := g.rec.Tasks[i].Status.Started
		for k := range g.spec.Tasks[i].Checks {
			c := &g.spec.Tasks[i].Checks[k]
			first := max(0, time.Until(started.Add(c.Delay)))
			if fresh {
				first += rand.N(min(c.Interval, firstJitter))
			} else {
				first += rand.N(c.Interval)
			}
			target, port := g.target(i, c)
			var eager time.Time
			if fresh && c.Kind != kernel.CheckCommand {
				eager = started.Add(c.Grace)
			}
			g.checks.Go(func() {
				repeat(ctx, c, first, eager, g.a.checks, func(ctx context.Context) outcome {
					return g.a.probe(ctx, c, g.containers[i], target, port)
				}, func(o outcome) bool {
					select {
					case g.results <- checked{i, k, o}:
						return true
					case <-ctx.Done():
						return false
					}
				})
			})
		}
	}
}

// target is where a check of a task asks.
func (g *group) target(task int, c *kernel.Check) (netip.Addr, uint16) {
	addr := address(&g.rec, g.a.cfg.Address)
	if c.PortNumber != 0 || c.Kind == kernel.CheckCommand {
		return addr, c.PortNumber
	}
	ports, host := portsOf(&g.rec, task)
	return addr, inside(g.spec.Network.Mode, ports[c.PortIndex], host[c.PortIndex])
}

// repeat runs one check again and again: first after a while, then at its interval from start to start, jittered so that
// many do not come together. Until eager, while failures do not count, it asks sooner after each failure, so that a task gets
// traffic as soon as it can serve and not an interval later. It ends with ctx, or when nobody takes an outcome.
func repeat(ctx context.Context, c *kernel.Check, first time.Duration, eager time.Time, s slots, probe func(context.Context) outcome, tell func(outcome) bool) {
	next := time.Now().Add(first)
	for soon := firstJitter; pause(ctx, time.Until(next)); soon *= 2 {
		if s.take(ctx) != nil {
			return
		}
		begun := time.Now()
		next = begun.Add(c.Interval - c.Interval/20 + rand.N(c.Interval/10+1))
		pctx, cancel := context.WithTimeout(ctx, c.Timeout)
		o := probe(pctx)
		if !o.ok && pctx.Err() != nil {
			o.cause = fmt.Sprintf("no answer within %s", c.Timeout)
		}
		cancel()
		s.give()
		o.at = time.Now().UTC()
		if o.ok {
			eager = time.Time{}
		} else if begun.Before(eager) {
			next = begun.Add(min(soon, next.Sub(begun)))
		}
		if len(o.cause) > kernel.MaxMessage {
			o.cause = o.cause[:kernel.MaxMessage]
		}
		if ctx.Err() != nil || !tell(o) {
			return
		}
	}
}

// probe asks once.
func (a *Agent) probe(ctx context.Context, c *kernel.Check, container string, addr netip.Addr, port uint16) outcome {
	at := netip.AddrPortFrom(addr, port).String()
	switch c.Kind {
	case kernel.CheckHTTP, kernel.CheckHTTPS:
		return probeHTTP(ctx, c, at)
	case kernel.CheckTCP:
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", at)
		if err != nil {
			return outcome{cause: err.Error()}
		}
		conn.Close()
		return outcome{ok: true}
	case kernel.CheckCommand:
		return a.probeCommand(ctx, c, container)
	}
	return outcome{ignore: true}
}

func probeHTTP(ctx context.Context, c *kernel.Check, at string) outcome {
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // as DC/OS does: it asks whether it answers, not who
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	url := string(c.Kind) + "://" + at + "/" + strings.TrimPrefix(c.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return outcome{cause: fmt.Sprintf("path %q: %v", c.Path, err)}
	}
	req.Header.Set("User-Agent", "marina-health-check")
	res, err := client.Do(req)
	if err != nil {
		return outcome{cause: err.Error()}
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxCheckBody)); err != nil {
		return outcome{cause: err.Error()}
	}
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 400:
		return outcome{ok: true}
	case res.StatusCode < 200 && c.Ignore1xx:
		return outcome{ignore: true}
	}
	return outcome{cause: fmt.Sprintf("answered %s", res.Status)}
}

func (a *Agent) probeCommand(ctx context.Context, c *kernel.Check, container string) outcome {
	argv := c.Argv
	if c.Shell != "" {
		argv = []string{"/bin/sh", "-c", c.Shell}
	}
	var out head
	code, err := a.rt.Exec(ctx, container, runtime.Exec{Argv: argv, Stdout: &out, Stderr: &out})
	switch {
	case err != nil:
		return outcome{cause: err.Error()}
	case code != 0:
		return outcome{cause: fmt.Sprintf("exited with %d: %s", code, out.String())}
	}
	return outcome{ok: true}
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
