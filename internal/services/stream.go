package services

import (
	"sync"
	"time"

	"github.com/marinaos/marina/internal/marathon"
)

// StreamBuffer bounds the events a reader of the stream is behind; one that is further is cut off.
const StreamBuffer = 1024

// hub hands events to the readers of the stream.
type hub struct {
	mu      sync.Mutex           // a leaf: nothing is called under it
	readers map[*Stream]struct{} // guarded by mu
}

// Stream is one reader of events.
type Stream struct {
	s     *Services
	from  string
	types map[string]bool // nil: all
	c     chan Encoded
}

// Encoded is an event as JSON.
type Encoded struct {
	Kind string
	Data []byte
}

func (h *hub) join(s *Services, types []string, from string) *Stream {
	r := &Stream{s: s, from: from, c: make(chan Encoded, StreamBuffer)}
	if len(types) > 0 {
		r.types = map[string]bool{}
		for _, t := range types {
			r.types[t] = true
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers[r] = struct{}{}
	return r
}

func (h *hub) leave(r *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

// publish never blocks.
func (h *hub) publish(events []marathon.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.readers) == 0 {
		return
	}
	for _, e := range events {
		data, err := marathon.Encode(e.Data)
		if err != nil {
			panic(err) // this cannot be: events are own types without cycles, channels or NaN
		}
		m := Encoded{e.Type, data}
		for r := range h.readers {
			if r.types != nil && !r.types[e.Type] {
				continue
			}
			select {
			case r.c <- m:
			default:
				close(r.c)
				delete(h.readers, r)
			}
		}
	}
}

// Subscribe opens a stream of the events of some types, of all with nil, for a reader at an address. Its owner closes
// it.
func (s *Services) Subscribe(types []string, from string) *Stream {
	r := s.hub.join(s, types, from)
	r.attached("event_stream_attached")
	return r
}

// Events delivers all events from now on. The channel is closed when the reader is too far behind.
func (r *Stream) Events() <-chan Encoded { return r.c }

// Close ends the stream.
func (r *Stream) Close() {
	r.s.hub.leave(r)
	r.attached("event_stream_detached")
}

func (r *Stream) attached(kind string) {
	r.s.hub.publish([]marathon.Event{{Type: kind, Data: marathon.StreamAttached{Head: marathon.NewHead(kind,
		time.Now()), RemoteAddress: r.from}}})
}
