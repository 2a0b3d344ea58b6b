package gateway

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bodyPace    = 30 * time.Second // time for a client to send the next bytes of a body
	bodyLinger  = 5 * time.Second  // the same, for a body that no handler reads any more
	writePace   = time.Minute      // time for a client to read the next writeAtOnce bytes of an answer
	writeAtOnce = 256 << 10        // bytes
)

// past is a deadline that ends blocked reads and writes.
var past = time.Unix(1, 0)

// writer is a response with a minimum pace of its client, which can be cut off from other goroutines: handlers
// blocked in a read or a write do not notice that their context ended.
type writer struct {
	http.ResponseWriter
	controller *http.ResponseController
	wrote      bool // owned by the handler's goroutine, as the next two
	status     int  // of the answer, 0 before there is one
	aborted    bool // the answer is not whole, and its client knows

	mu       sync.Mutex
	cut      bool     // deadlines stay in the past; guarded by mu
	finished bool     // the handler has returned; guarded by mu
	conn     net.Conn // after Hijack; guarded by mu
}

func newWriter(rw http.ResponseWriter) *writer {
	w := &writer{ResponseWriter: rw, controller: http.NewResponseController(rw)}
	w.writeDeadline(time.Time{}) // the last request on the connection left one
	return w
}

// Unwrap implements the interface that http.ResponseController looks for.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader remembers the first final status.
func (w *writer) WriteHeader(status int) {
	if !w.wrote && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.wrote, w.status = true, status
	}
	w.ResponseWriter.WriteHeader(status)
}

// sentStatus returns the status of the answer, 0 if the client gets no whole one.
func (w *writer) sentStatus() int {
	switch {
	case w.aborted:
		return 0
	case w.status == 0: // net/http's for a handler that writes nothing
		return http.StatusOK
	}
	return w.status
}

// Write fails when the client does not read.
func (w *writer) Write(p []byte) (n int, err error) {
	w.wrote = true
	for {
		part := p[n:min(len(p), n+writeAtOnce)]
		w.writeDeadline(time.Now().Add(writePace))
		m, err := w.ResponseWriter.Write(part)
		w.writeDeadline(time.Time{})
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// FlushError fails when the client does not read.
func (w *writer) FlushError() error {
	w.wrote = true
	w.writeDeadline(time.Now().Add(writePace))
	err := w.controller.Flush()
	w.writeDeadline(time.Time{})
	return err
}

// Flush is FlushError for callers that ignore the error.
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack hands the connection over; cutOff can still close it.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.controller.Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote, w.conn = true, c
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	if w.cut {
		c.Close()
	}
	return c, rw, nil
}

func (w *writer) writeDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut && !w.finished && w.conn == nil {
		_ = w.controller.SetWriteDeadline(t) // not every ResponseWriter has deadlines
	}
}

func (w *writer) readDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut && !w.finished && w.conn == nil {
		_ = w.controller.SetReadDeadline(t)
	}
}

// cutOff ends the request: blocked reads and writes return, later ones fail. Any goroutine may call it.
func (w *writer) cutOff() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut || w.finished {
		return
	}
	w.cut = true
	if w.conn != nil {
		w.conn.Close()
		return
	}
	_ = w.controller.SetReadDeadline(past)
	_ = w.controller.SetWriteDeadline(past)
}

// finish limits the time that the server spends on the request after its handler; no deadline changes from then on.
func (w *writer) finish(body *pacedBody) {
	if body != nil && !body.done.Load() {
		w.readDeadline(time.Now().Add(bodyLinger))
	}
	w.writeDeadline(time.Now().Add(writePace))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = true
}

// pacedBody is a request's body with a minimum pace of its client. It always has a deadline until its end, since the
// server itself may read it to finish the request. A proxy's transport may still read it when the handler has
// returned.
type pacedBody struct {
	io.ReadCloser
	w       *writer
	unpaced bool // set before the first read
	done    atomic.Bool
}

func newPacedBody(w *writer, body io.ReadCloser) *pacedBody {
	b := &pacedBody{ReadCloser: body, w: w}
	w.readDeadline(time.Now().Add(bodyPace))
	return b
}

// removePace removes the minimum pace, for a stream.
func (b *pacedBody) removePace() {
	b.unpaced = true
	b.w.readDeadline(time.Time{})
}

// Read fails with os.ErrDeadlineExceeded when the client does not send.
func (b *pacedBody) Read(p []byte) (int, error) {
	if !b.unpaced {
		b.w.readDeadline(time.Now().Add(bodyPace))
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		b.done.Store(true)
		b.w.readDeadline(time.Time{}) // from now on the server waits until the client goes away
	}
	return n, err
}
