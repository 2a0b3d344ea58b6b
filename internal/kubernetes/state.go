package kubernetes

import (
	"maps"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
)

// cluster is everything that is decided from: a row, what the kernel has of it, and what was seen since this leader
// began.
type cluster struct {
	Row
	members map[string]*member // by name, all that exist or should
	told    *wire.Status       // the steward's last word; nil: none yet
	toldAt  time.Time          // and when it came
	machine string             // address of the control plane's machine
	silent  string             // why the steward does not answer now; empty: it does
	offered *[]kernel.Port     // what the kernel was last asked to expose; nil: nothing yet, under this leader
	exposed []kernel.EndpointPort
	// refused is why a load balancer's port is not published, by its key.
	refused    map[string]string
	archives   []string // files of the images loaded into it, oldest first
	troubles   map[step]*trouble
	parked     *kernel.Alarm // set aside: nothing of it is changed; nil: it is not
	unreadable bool          // its row was: Row is what could be read of it
	events     []Event
	state      State // as of the last event
}

// member is the control plane or a node.
type member struct {
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

// after is when the member may be started.
func (m *member) after() time.Time {
	if m.failures <= 1 { // at once the first time: most likely it was killed
		return m.ended
	}
	return m.ended.Add(min(firstPause<<min(m.failures-2, 10), maxPause))
}

func newCluster(r Row) *cluster {
	return &cluster{Row: r, members: map[string]*member{}, refused: map[string]string{}, troubles: map[step]*trouble{}}
}

func (c *cluster) member(name string) *member {
	m := c.members[name]
	if m == nil {
		m = &member{name: name}
		c.members[name] = m
	}
	return m
}

// observe takes in one instance of the cluster.
func (c *cluster) observe(name string, i kernel.Instance, now time.Time) {
	m := c.member(name)
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

// nodes lists the nodes that exist or should, by number.
func (c *cluster) nodes() []*member {
	var out []*member
	for name, m := range c.members {
		if _, ok := nodeNumber(name); ok {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *member) int {
		x, _ := nodeNumber(a.name)
		y, _ := nodeNumber(b.name)
		return x - y
	})
	return out
}

// lacks lists the archives of images that a node with an instance has yet to get.
func (c *cluster) lacks(m *member) []string {
	if m.givenTo != m.instance.ID {
		return c.archives
	}
	var out []string
	for _, file := range c.archives {
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

// forget removes a member of which nothing exists.
func (c *cluster) forget(m *member) {
	delete(c.members, m.name)
	maps.DeleteFunc(c.troubles, func(s step, _ *trouble) bool { return s.member == m.name })
}

// wanted reports whether a member should be.
func (c *cluster) wanted(name string) bool {
	n, isNode := nodeNumber(name)
	return c.Deleted.IsZero() && (!isNode || n <= *c.Nodes.Count)
}

// statusOf is the steward's word on a node.
func (c *cluster) statusOf(node string) *wire.NodeStatus {
	if c.told != nil {
		for k := range c.told.Nodes {
			if c.told.Nodes[k].Name == node {
				return &c.told.Nodes[k]
			}
		}
	}
	return nil
}

// add notes an event.
func (c *cluster) add(now time.Time, message string) {
	if n := len(c.events); n > 0 && c.events[n-1].Message == message {
		return
	}
	c.events = append(c.events, Event{Time: now.UTC().Round(time.Millisecond), Cluster: c.Name, Message: message})
	if len(c.events) > MaxEvents {
		c.events = slices.Clone(c.events[len(c.events)-MaxEvents:])
	}
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
