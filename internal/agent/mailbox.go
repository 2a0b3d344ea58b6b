package agent

import (
	"slices"
	"sync"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// mailbox collects events for an instance's goroutine. Its methods are safe for concurrent use and
// never wait.
type mailbox struct {
	mu     sync.Mutex
	exits  map[string]runtime.Exit  // by container, the first of each; guarded by mu
	gone   map[string]bool          // containers that are not there any more; guarded by mu
	acks   map[kernel.TaskID]uint64 // the highest Seq acknowledged; guarded by mu
	forget bool                     // nobody waits for its statuses; guarded by mu
	want   *[]kernel.Size           // sizes it is to have; guarded by mu

	wake chan struct{} // something above changed
}

func newMailbox() mailbox {
	return mailbox{exits: map[string]runtime.Exit{}, gone: map[string]bool{}, acks: map[kernel.TaskID]uint64{},
		wake: make(chan struct{}, 1)}
}

// leave changes what is in the mailbox and has the instance look.
func (m *mailbox) leave(change func()) {
	m.mu.Lock()
	change()
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// exited leaves the exit of a container. Of several the first counts.
func (m *mailbox) exited(e runtime.Exit) {
	m.leave(func() {
		if _, ok := m.exits[e.ID]; !ok {
			m.exits[e.ID] = e
		}
	})
}

// vanished leaves that a container is not there any more.
func (m *mailbox) vanished(container string) { m.leave(func() { m.gone[container] = true }) }

// acked leaves that the master has a status for good.
func (m *mailbox) acked(ack kernel.StatusAck) {
	m.leave(func() { m.acks[ack.Task] = max(m.acks[ack.Task], ack.Seq) })
}

// forgotten leaves that nobody waits for the instance's statuses.
func (m *mailbox) forgotten() { m.leave(func() { m.forget = true }) }

// resized leaves which sizes the instance's tasks are to have from now on.
func (m *mailbox) resized(sizes []kernel.Size) {
	sizes = slices.Clone(sizes)
	m.leave(func() { m.want = &sizes })
}

// fate tells how a container ended: by an exit, or by not being there.
func (m *mailbox) fate(container string) (exit *runtime.Exit, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x, ok := m.exits[container]; ok {
		return &x, false
	}
	return nil, m.gone[container]
}

// takeSizes empties the wish for other sizes; nil if there is none.
func (m *mailbox) takeSizes() *[]kernel.Size {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := m.want
	m.want = nil
	return want
}

// settled reports whether nobody needs to hear of these statuses any more.
func (m *mailbox) settled(tasks []taskRecord) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.forget || !slices.ContainsFunc(tasks, func(t taskRecord) bool { return m.acks[t.Status.Task] < t.Status.Seq })
}
