package core

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// firstVNI begins the numbers of clusters' own networks.
const firstVNI = 4096

// State is all clusters, and when each is to be settled.
type State struct {
	publish  kernel.PortRange    // of the machines, for load balancers
	clusters map[string]*Cluster // by name
	complete bool                // kernel.Changes.Complete: until then nothing is started because it seems missing
	agenda   agenda
}

// NewState returns the state of no clusters. Their load balancers are published on the machines' ports of a range.
func NewState(publish kernel.PortRange) *State {
	return &State{publish: publish, clusters: map[string]*Cluster{},
		agenda: agenda{now: map[string]bool{}, later: map[string]time.Time{}}}
}

// Put takes a cluster in.
func (s *State) Put(c *Cluster) { s.clusters[c.Name] = c }

// Drop forgets a cluster of which nothing is left.
func (s *State) Drop(name string) { delete(s.clusters, name) }

// Get finds a cluster; nil: there is none of that name.
func (s *State) Get(name string) *Cluster { return s.clusters[name] }

// Find finds a cluster. One that is not there is an errdefs.ErrNotFound.
func (s *State) Find(name string) (*Cluster, error) {
	if c := s.clusters[name]; c != nil {
		return c, nil
	}
	return nil, NotFound(name)
}

// NotFound says that there is no cluster of a name.
func NotFound(name string) error {
	return fmt.Errorf("cluster %.60q does not exist: `marina cluster list` tells those that do: %w", name,
		errdefs.ErrNotFound)
}

// Living finds a cluster that can be changed: one that is being deleted or parked is an errdefs.ErrFailedPrecondition.
func (s *State) Living(name string) (*Cluster, error) {
	c, err := s.Find(name)
	switch {
	case err != nil:
		return nil, err
	case !c.Deleted.IsZero():
		return nil, fmt.Errorf("cluster %s is being deleted: %w", name, errdefs.ErrFailedPrecondition)
	case c.parked != nil:
		return nil, fmt.Errorf("cluster %s is parked: %s; %s: %w", name, c.parked.Problem, c.parked.Do,
			errdefs.ErrFailedPrecondition)
	}
	return c, nil
}

// Admit refuses a new cluster whose name is taken, or that is one too many.
func (s *State) Admit(name string) error {
	switch c := s.clusters[name]; {
	case c == nil && len(s.clusters) >= MaxClusters:
		return fmt.Errorf("there are %d clusters, the most there may be: %w", len(s.clusters), errdefs.ErrResourceExhausted)
	case c == nil:
		return nil
	case !c.Deleted.IsZero():
		return fmt.Errorf("cluster %s is being deleted: wait until it is gone, or choose another name: %w", name,
			errdefs.ErrAlreadyExists)
	}
	return fmt.Errorf("cluster %s is there already: choose another name, or look at it with `marina cluster show %s`: %w",
		name, name, errdefs.ErrAlreadyExists)
}

// FreeVNI is the lowest number that no cluster's network has. While a cluster's number could not be read it is one of
// those beyond what as many clusters as there may be ever had.
func (s *State) FreeVNI() int {
	taken, n := map[int]bool{}, firstVNI
	for _, c := range s.clusters {
		if taken[c.VNI] = true; c.VNI == 0 {
			n = firstVNI + MaxClusters
		}
	}
	for taken[n] {
		n++
	}
	return n
}

// Observe takes in what the kernel tells of itself; its instances are for ObserveInstance.
func (s *State) Observe(c kernel.Changes) {
	for name, x := range s.clusters {
		if c.Complete != s.complete {
			s.agenda.touch(name)
		}
		for _, m := range x.members {
			if c.Room && m.problem != "" { // what was refused may fit now; what waits is the kernel's to place
				m.problem = ""
				s.agenda.touch(name)
			}
		}
	}
	s.complete = c.Complete
}

// ObserveInstance takes in an instance of a cluster's member, and reports whether there is such a cluster.
func (s *State) ObserveInstance(name, member string, i kernel.Instance, now time.Time) bool {
	c := s.clusters[name]
	if c == nil {
		return false
	}
	c.member(member).observe(i, now)
	s.agenda.touch(name)
	return true
}

// ObserveKernel takes in the kernel's reservations, queue and machines, and touches the clusters of which something
// is otherwise.
func (s *State) ObserveKernel(reservations []kernel.ReservationView, queue []kernel.Waiting,
	agents []kernel.AgentView) {
	find := func(reservation string) *member {
		name, member, ok := memberOf(reservation)
		if c := s.clusters[name]; ok && c != nil {
			return c.member(member)
		}
		return nil
	}
	reserved, waiting := map[*member]*kernel.ReservationView{}, map[*member]*kernel.Waiting{}
	for n := range reservations {
		if m := find(reservations[n].Name); m != nil {
			reserved[m] = &reservations[n]
		}
	}
	for n := range queue {
		if m := find(queue[n].Key); m != nil {
			waiting[m] = &queue[n]
		}
	}
	hosts := map[kernel.AgentID]string{}
	for _, a := range agents {
		if a.Address.IsValid() {
			hosts[a.ID] = a.Address.String()
		}
	}
	for name, c := range s.clusters {
		for _, m := range c.members {
			if m.sees(reserved[m], waiting[m]) {
				s.agenda.touch(name)
			}
		}
		if plane := c.members[ControlPlane]; plane != nil && plane.reservation != nil {
			if host := hosts[plane.reservation.Agent]; host != "" && host != c.machine {
				c.machine = host
				s.agenda.touch(name)
			}
		}
	}
}

// Touch has a cluster be settled.
func (s *State) Touch(name string) { s.agenda.touch(name) }

// Due touches the clusters whose time has come, and reports whether there are any.
func (s *State) Due(now time.Time) bool { return s.agenda.due(s.clusters, now) }

// Take returns the names of the clusters to settle now, sorted, and takes them off the agenda. Some may be gone.
func (s *State) Take() []string { return s.agenda.take() }

// At notes when to settle a cluster again; the zero time: when something changes.
func (s *State) At(name string, t time.Time) { s.agenda.at(name, t) }

// Next returns the time of the next cluster to settle.
func (s *State) Next() time.Time { return s.agenda.next() }

// published is the machines' ports that load balancers have.
func (s *State) published() map[uint16]bool {
	out := map[uint16]bool{}
	for _, c := range s.clusters {
		for _, p := range c.Published {
			out[p] = true
		}
	}
	return out
}

// Alarms lists the clusters that are parked, by name.
func (s *State) Alarms() []kernel.Alarm {
	out := []kernel.Alarm{}
	for _, name := range sortedKeys(s.clusters) {
		if a := s.clusters[name].parked; a != nil {
			out = append(out, *a)
		}
	}
	return out
}

// List shows all clusters by name; see Cluster.View.
func (s *State) List(agents func() []kernel.AgentView) []View {
	out := []View{}
	for _, name := range sortedKeys(s.clusters) {
		out = append(out, s.clusters[name].View(agents))
	}
	return out
}
