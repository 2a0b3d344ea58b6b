package clitest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Canned is an API that answers each request with what it is given for it, and everything else with 404. It keeps what
// it was asked.
type Canned struct {
	answers map[string]answer

	mu    sync.Mutex
	asked []string // METHOD path?query body; guarded by mu
}

// Answering returns one. Each pair is a request, "PUT /quota/v1/prod" or with another status than 200 "PUT
// /quota/v1/prod 422", and the body of its answer.
func Answering(pairs ...string) *Canned {
	c := &Canned{answers: map[string]answer{}}
	for pair := range slices.Chunk(pairs, 2) {
		var method, path string
		a := answer{http.StatusOK, pair[1]}
		fmt.Sscan(pair[0], &method, &path, &a.status)
		c.answers[method+" "+path] = a
	}
	return c
}

// ServeHTTP implements http.Handler.
func (c *Canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	path := r.URL.EscapedPath()
	a, ok := c.answers[r.Method+" "+path]
	if !ok {
		a = answer{http.StatusNotFound, fmt.Sprintf(`{"message":"there is no %s"}`, path)}
	}
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	c.mu.Lock()
	c.asked = append(c.asked, strings.TrimSpace(r.Method+" "+path+" "+string(body)))
	c.mu.Unlock()
	w.WriteHeader(a.status)
	io.WriteString(w, a.body)
}

// Asked checks what was asked since the last call.
func (c *Canned) Asked(t *testing.T, what string, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	Same(t, what+": requests", strings.Join(c.asked, "\n"), strings.Join(want, "\n"))
	c.asked = nil
}
