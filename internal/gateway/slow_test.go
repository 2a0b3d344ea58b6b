package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/store/memory"
)

// pipeListener is a listener without a network, so that it works in a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipeListener) Close() error   { close(p.done); return nil }
func (p *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// withSlowClients runs f with connections to a gateway whose clock is the bubble's.
func withSlowClients(t *testing.T, routes []Route, f func(t *testing.T, token string, dial func() net.Conn)) {
	raw := make([]byte, 32)
	root := must(identity.NewRootKey(raw))(t)
	st := memory.New()
	for i := range routes {
		routes[i].Asks = true
	}
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		dir := must(identity.Open(t.Context(), identity.Config{Datacenter: "dc-1"}, st, root, log))(t)
		g := &Gateway{cfg: Config{BodyLimit: 1 << 20, MaxRequests: 10, MaxStreams: 10}, identity: dir, log: log,
			origin: http.NewCrossOriginProtection(), routes: must(newTable(routes))(t), recorder: newRecorder(nil, nil)}
		ctx, cancel := context.WithCancel(context.Background())
		l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		served, ran := make(chan error, 1), make(chan error, 1)
		go func() { ran <- dir.Run(ctx) }()
		go func() { served <- g.serveOn(ctx, l) }()
		token := must(dir.IssueRoot(t.Context(), 0, ""))(t)
		f(t, token.Secret, func() net.Conn {
			ours, theirs := net.Pipe()
			l.conns <- theirs
			return ours
		})
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("serve = %v", err)
		}
		<-ran
	})
}

// closedAfter reads until the other end closes and returns how long that took.
func closedAfter(c net.Conn) (time.Duration, string) {
	began := time.Now()
	raw, _ := io.ReadAll(c)
	c.Close()
	return time.Since(began), string(raw)
}

func TestSlowClientsAreCutOff(t *testing.T) {
	var read chan error // of the bubble
	routes := []Route{
		{Prefix: "/read", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
		})},
		{Prefix: "/write", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for range 10 {
				if _, err := w.Write(make([]byte, writeAtOnce)); err != nil {
					read <- err
					return
				}
			}
			read <- nil
		})},
		{Prefix: "/wait", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Hour):
				fmt.Fprint(w, "done")
			}
		})},
	}
	withSlowClients(t, routes, func(t *testing.T, token string, dial func() net.Conn) {
		read = make(chan error, 1)
		head := func(method, path string, length int) string {
			return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: token=%s\r\nContent-Length: %d\r\n\r\n",
				method, path, token, length)
		}

		c := dial()
		go io.WriteString(c, "GET /read HTTP/1.1\r\nHost: x\r\nX: ")
		if took, _ := closedAfter(c); took > headerTimeout+time.Second {
			t.Errorf("half a header: closed after %v, want %v", took, headerTimeout)
		}

		c = dial() // a byte every so often is slow, and all right
		go func() {
			io.WriteString(c, head("POST", "/read", 5))
			for range 5 {
				time.Sleep(bodyPace - time.Second) // in the bubble's time: a slow body is what is tested
				io.WriteString(c, "x")
			}
		}()
		if err := <-read; err != nil {
			t.Errorf("slow body: %v, want it whole", err)
		}
		c.Close()

		c = dial()
		go io.WriteString(c, head("POST", "/read", 5)+"x")
		began := time.Now()
		if err := <-read; err == nil || time.Since(began) > bodyPace+time.Second {
			t.Errorf("body that stops: %v after %v, want an error after %v", err, time.Since(began), bodyPace)
		}
		closedAfter(c)

		c = dial() // refused, and the server wants to be done with the body
		go io.WriteString(c, strings.Replace(head("POST", "/read", 100), "token=", "token=x", 1))
		if took, got := closedAfter(c); took > bodyPace+bodyLinger+time.Second || !strings.Contains(got, " 401 ") {
			t.Errorf("refused body that never comes: %q after %v", got, took)
		}

		c = dial()
		io.WriteString(c, head("GET", "/write", 0))
		began = time.Now()
		if err := <-read; err == nil || time.Since(began) > writePace+time.Second {
			t.Errorf("answer that nobody reads: %v after %v, want an error after %v", err, time.Since(began), writePace)
		}
		c.Close()

		c = dial() // small enough for the server's buffer: the server itself has to write it
		io.WriteString(c, strings.Replace(head("GET", "/read", 0), "token=", "token=x", 1))
		time.Sleep(writePace + time.Second) // in the bubble's time: a slow reader is what is tested
		if _, got := closedAfter(c); got != "" {
			t.Errorf("small answer that nobody reads: %.20q is still sent after %v", got, writePace)
		}

		c = dial() // waiting for an answer is not slow
		io.WriteString(c, head("POST", "/wait", 2)+"{}")
		resp := must(http.ReadResponse(bufio.NewReader(c), nil))(t)
		if body := must(io.ReadAll(resp.Body))(t); string(body) != "done" {
			t.Errorf("answer after an hour: %q, want done", body)
		}
		if took, _ := closedAfter(c); took > idleTimeout+time.Second {
			t.Errorf("idle connection: closed after %v, want %v", took, idleTimeout)
		}
	})
}
