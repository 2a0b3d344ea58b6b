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
	bodyPace    = 30 * time.Second // longest a client may take to send the next bytes of a body
	bodyLinger  = 5 * time.Second  // the same, for a body that nobody reads any more
	writePace   = time.Minute      // longest a client may take to read the next bytes of an answer
	writeAtOnce = 256 << 10        // bytes that have to be read within writePace
)

// past is a deadline that ends what is waiting.
var past = time.Unix(1, 0)

// writer is a response whose client has to keep reading, and which can be cut off from outside: handlers that wait in a
// read or a write do not see their context end.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	wrote   bool // owned by the handler's goroutine, as the next two
	status  int  // of the answer, 0 before there is one
	aborted bool // the answer is not whole, and its client knows

	mu       sync.Mutex
	cut      bool     // no deadline may be moved any more; guarded by mu
	finished bool     // the handler has returned; guarded by mu
	conn     net.Conn // after Hijack; guarded by mu
}

func newWriter(rw http.ResponseWriter) *writer {
	w := &writer{ResponseWriter: rw, control: http.NewResponseController(rw)}
	w.writeDeadline(time.Time{}) // the last request on the connection left one
	return w
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes that there is no other status any more.
func (w *writer) WriteHeader(status int) {
	if !w.wrote && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.wrote, w.status = true, status
	}
	w.ResponseWriter.WriteHeader(status)
}

// result is the status of the answer as its client sees it, 0 if it gets none that is whole.
func (w *writer) result() int {
	switch {
	case w.aborted:
		return 0
	case w.status == 0: // what net/http says for a handler that says nothing
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
	err := w.control.Flush()
	w.writeDeadline(time.Time{})
	return err
}

// Flush is FlushError for those who do not look.
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack hands the connection over, and keeps the means to close it.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.control.Hijack()
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
		_ = w.control.SetWriteDeadline(t) // not every ResponseWriter has deadlines
	}
}

func (w *writer) readDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut && !w.finished && w.conn == nil {
		_ = w.control.SetReadDeadline(t)
	}
}

// end cuts the request off: reads and writes that wait return, later ones fail. Any goroutine may call it.
func (w *writer) end() {
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
	_ = w.control.SetReadDeadline(past)
	_ = w.control.SetWriteDeadline(past)
}

// finish bounds what the server does with the request after its handler, and leaves the connection alone from then on.
func (w *writer) finish(body *pacedBody) {
	if body != nil && !body.done.Load() {
		w.readDeadline(time.Now().Add(bodyLinger))
	}
	w.writeDeadline(time.Now().Add(writePace))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = true
}

// pacedBody is a request's body whose client has to keep sending. From its making until its end there always is a
// deadline, since the server itself may read it, to be done with the request. A proxy's transport may still read it
// when the handler has returned.
type pacedBody struct {
	io.ReadCloser
	w    *writer
	free bool // no pace; set before anybody reads
	done atomic.Bool
}

func newPacedBody(w *writer, body io.ReadCloser) *pacedBody {
	b := &pacedBody{ReadCloser: body, w: w}
	w.readDeadline(time.Now().Add(bodyPace))
	return b
}

// release takes the pace off, for a stream.
func (b *pacedBody) release() {
	b.free = true
	b.w.readDeadline(time.Time{})
}

// Read fails with os.ErrDeadlineExceeded when the client does not send.
func (b *pacedBody) Read(p []byte) (int, error) {
	if !b.free {
		b.w.readDeadline(time.Now().Add(bodyPace))
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		b.done.Store(true)
		b.w.readDeadline(time.Time{}) // the server waits for the client to go away now
	}
	return n, err
}
