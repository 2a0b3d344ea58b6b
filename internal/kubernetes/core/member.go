package core

import (
	"maps"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// member is the control plane or a node.
type member struct {
	of          *Cluster
	name        string
	reservation *kernel.ReservationView // nil: nothing of it exists
	instance    *kernel.Instance        // nil: none is placed
	waiting     *kernel.Waiting         // in the kernel's queue
	asked       kernel.InstanceID       // launched by this leader and not heard of yet
	problem     string                  // why the last launch or resize was refused
	has         *kernel.Size            // what its instance was launched with or resized to by this leader
	leaving     time.Time               // since when it is too many
	given       []string                // archives of images that givenTo has
	givenTo     kernel.InstanceID
	supplying   kernel.InstanceID // the instance that is being given images now
	joined      kernel.InstanceID // the instance whose node was ready once

	failures int       // ends by itself in a row
	ended    time.Time // last one
	because  string    // what it said
	restarts int
	taken    bool // the last start failed because its host port is somebody else's
}

// Pauses between starts of a member that keeps ending.
const (
	firstPause = time.Second
	maxPause   = time.Minute
	steady     = 5 * time.Minute // running for so long, it counts as recovered
)

// wanted reports whether the member should be.
func (m *member) wanted() bool { return m.of.wants(m.name) }

// size is the size that the member should have.
func (m *member) size() kernel.Size {
	if m.name == ControlPlane {
		return m.of.PlaneSize()
	}
	return m.of.NodeSize()
}

// after returns the time at which the member may be started.
func (m *member) after() time.Time {
	if m.failures <= 1 { // at once the first time: most likely it was killed
		return m.ended
	}
	return m.ended.Add(min(firstPause<<min(m.failures-2, 10), maxPause))
}

// observe takes in what became of an instance of the member.
func (m *member) observe(i kernel.Instance, now time.Time) {
	if m.asked == i.ID {
		m.asked = ""
	}
	if !i.Removed {
		if m.instance != nil && m.instance.ID != i.ID && m.instance.Placed.After(i.Placed) {
			return
		}
		if len(i.Sizes) > 0 {
			m.has = &i.Sizes[0]
		}
		m.instance, m.waiting = &i, nil
		return
	}
	if m.instance != nil && m.instance.ID != i.ID {
		return
	}
	m.instance, m.has = nil, nil
	if i.Goal == kernel.GoalStop {
		m.failures = 0
		return
	}
	started := i.Placed
	for k := range i.Statuses {
		if s := i.Statuses[k].Started; !s.IsZero() {
			started = s
		}
		m.because = i.Statuses[k].Message
		m.taken = i.Statuses[k].Reason == kernel.ReasonPort
	}
	if now.Sub(started) > steady {
		m.failures = 0
	}
	m.failures++
	m.restarts++
	m.ended = now
}

// running reports whether the member's process runs, and since when.
func (m *member) running() (time.Time, bool) {
	if m.instance == nil || m.instance.State() != kernel.Running || !m.instance.Away.IsZero() {
		return time.Time{}, false
	}
	return m.instance.Statuses[0].Started, true
}

// hasJoined reports whether a node's instance was ready once.
func (m *member) hasJoined() bool { return m.instance != nil && m.joined == m.instance.ID }

// moves reports whether a member gives up its reservation for another, since its port was somebody else's from the
// start, or has. Once the cluster was ready, its port is known to others and stays.
func (m *member) moves() bool {
	fresh := m.of.ReadyAt.IsZero()
	return m.reservation != nil && (m.reservation.Released || fresh && m.taken && m.instance == nil)
}

// drained reports whether the steward, who knows what is wanted, has removed the node.
func (m *member) drained() bool {
	s := &m.of.steward
	return s.told != nil && s.silent == "" && s.node(m.name) == nil && s.told.Desired == m.of.Desired().Revision()
}

// sees takes in the member's reservation and place in the queue, and reports whether there is something new about it.
func (m *member) sees(r *kernel.ReservationView, w *kernel.Waiting) bool {
	changed := !sameReservation(m.reservation, r) || (m.waiting == nil) != (w == nil)
	if m.reservation, m.waiting = r, w; w != nil && slices.Contains(w.Instances, m.asked) {
		m.asked = ""
	}
	return changed
}

func sameReservation(a, b *kernel.ReservationView) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Agent == b.Agent && a.Address == b.Address && a.Released == b.Released && a.Lost == b.Lost &&
		slices.Equal(a.HostPorts, b.HostPorts)
}

// lacks lists the archives of images that the node, which has an instance, has yet to get.
func (m *member) lacks() []string {
	if m.givenTo != m.instance.ID {
		return m.of.archives
	}
	var out []string
	for _, file := range m.of.archives {
		if !slices.Contains(m.given, file) {
			out = append(out, file)
		}
	}
	return out
}

// give notes that the member's instance has an archive's images.
func (m *member) give(file string) {
	if m.givenTo != m.instance.ID {
		m.given, m.givenTo = nil, m.instance.ID
	}
	if !slices.Contains(m.given, file) {
		m.given = append(m.given, file)
	}
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
