package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// callLimit is the time after which a call counts as failed.
const callLimit = 3 * time.Second

// Call is one request as its client saw it.
type Call struct {
	Begin time.Time
	Took  time.Duration
	Task  string // who answered
	New   bool   // on a connection of its own
	Err   error
}

// Caller is a client that calls probes at an address the whole time: each round once by a new connection and once by
// one that is kept alive.
type Caller struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu    sync.Mutex
	calls []Call // guarded by mu
}

// Call starts calling http://address/ every so often. A dial of nil is from the machine.
func NewCaller(address string, every time.Duration, dial func(context.Context, string, string) (net.Conn,
	error)) *Caller {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Caller{cancel: cancel}
	for _, once := range []bool{true, false} {
		client := &http.Client{Timeout: callLimit, Transport: &http.Transport{DisableKeepAlives: once, DialContext: dial}}
		c.wait.Go(func() {
			defer client.CloseIdleConnections()
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				c.call(client, "http://"+address+"/", once)
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	return c
}

func (c *Caller) call(client *http.Client, url string, once bool) {
	r := Call{Begin: time.Now(), New: once}
	r.Task, r.Err = who(client, url)
	r.Took = time.Since(r.Begin)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, r)
}

func who(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var t struct{ Task string }
	if err := json.Unmarshal(b, &t); err != nil || t.Task == "" {
		return "", fmt.Errorf("answer %d %.200s", resp.StatusCode, b)
	}
	return t.Task, nil
}

// Who calls an address once, by a new connection, and returns the task that answers.
func Who(address string) (string, error) {
	return who(&http.Client{Timeout: callLimit, Transport: &http.Transport{DisableKeepAlives: true}},
		"http://"+address+"/")
}

// Calls returns all so far.
func (c *Caller) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Stop ends the calling and returns all calls.
func (c *Caller) Stop() []Call {
	c.cancel()
	c.wait.Wait()
	return c.Calls()
}

// Failed returns the calls that failed.
func Failed(calls []Call) []Call {
	return slices.DeleteFunc(slices.Clone(calls), func(c Call) bool { return c.Err == nil })
}

// Percentile is the p-th part of the times calls took, p from 0 to 1. Zero without calls.
func Percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(times))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

// Times returns the durations of calls.
func Times(calls []Call) []time.Duration {
	out := make([]time.Duration, len(calls))
	for i, c := range calls {
		out[i] = c.Took
	}
	return out
}
