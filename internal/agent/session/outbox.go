package session

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// maxOutbox bounds the statuses that wait to be sent; a master that is further behind starts over.
const maxOutbox = 1 << 16

// Outbox queues statuses of a session. Its methods are safe for concurrent use and never wait.
type Outbox struct {
	mu       sync.Mutex
	statuses []kernel.Status // guarded by mu
	released []string        // reservations of which nothing is left; guarded by mu
	end      error           // why the session is to end; guarded by mu

	wake chan struct{}
}

func newOutbox() *Outbox { return &Outbox{wake: make(chan struct{}, 1)} }

func (o *Outbox) put(change func()) {
	o.mu.Lock()
	change()
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Status sends a status.
func (o *Outbox) Status(s kernel.Status) {
	o.put(func() {
		if len(o.statuses) >= maxOutbox {
			o.end = fmt.Errorf("master takes statuses too slowly: %w", errdefs.ErrResourceExhausted)
			return
		}
		o.statuses = append(o.statuses, s)
	})
}

// Released tells that nothing is left of a reservation.
func (o *Outbox) Released(claim string) { o.put(func() { o.released = append(o.released, claim) }) }

// End ends the session: the agent has to register anew.
func (o *Outbox) End(why error) { o.put(func() { o.end = why }) }

// take empties the outbox into a frame.
func (o *Outbox) take(up *kernel.Up) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.end != nil {
		return o.end
	}
	up.Statuses, o.statuses = o.statuses, nil
	up.Released, o.released = o.released, nil
	return nil
}
