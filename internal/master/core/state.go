package core

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/subnet"
	"github.com/marinaos/marina/internal/master/vip"
)

// State is everything a leader knows. It changes in Load and Step only; one goroutine owns it. The order of events
// decides everything: no map is iterated where the order could show.
type State struct {
	tables
	wakeAt time.Time // when the last step asked for a Tick
}

// NewState returns an empty state.
func NewState(cfg Config) *State {
	s := &State{}
	s.init(cfg.WithDefaults())
	return s
}

// Instances lists what is placed of a framework, all frameworks' if it is empty, by agent.
func (s *State) Instances(framework string) []*kernel.Record {
	out := make([]*kernel.Record, 0, s.specs.Placed(framework))
	for i := range s.fleet.instances {
		if framework == "" || i.Framework == framework {
			out = append(out, i.Record)
		}
	}
	return out
}

// Task finds the instance of a task: one that is placed, or one of the last that ended under this leader.
func (s *State) Task(id kernel.TaskID) (inst *kernel.Record, task int, ok bool) {
	for at := strings.LastIndexByte(string(id), '.'); at > 0; at = strings.LastIndexByte(string(id[:at]), '.') {
		if i := s.instance(kernel.InstanceID(id[:at])); i != nil {
			k := i.Find(id)
			return i.Record, k, k >= 0
		}
	}
	return s.past.Find(id)
}

// Sizes counts the machines, the instances and the instances that wait.
func (s *State) Sizes() (machines, instances, waiting int) {
	return len(s.fleet.order), s.instances.Len(), s.queue.Len()
}

// Connected lists the agents that have a session, those longest known first.
func (s *State) Connected() (out []kernel.AgentID) {
	for _, a := range s.fleet.order {
		if a.session != 0 {
			out = append(out, a.info.ID)
		}
	}
	return out
}

// Complete is Changes.Complete of the kernel's watches.
func (s *State) Complete() bool { return s.fleet.complete }

// Queue lists what waits of a framework, longest waiting first.
func (s *State) Queue(framework string) []kernel.Waiting {
	var out []kernel.Waiting
	for e := range s.queue.All {
		if e.Framework == framework {
			w := kernel.Waiting{Key: e.Key.Key, Owner: e.Spec.Owner, Version: e.Spec.Version,
				Instances: slices.Clone(e.Instances), Since: e.Since, Refusal: s.refusal(e), Tries: e.Tries,
				Priority: e.Spec.Priority}
			if b := e.Backfill(); b != nil {
				w.Backfill = s.fleet.get(b.Agent).info.Hostname
			}
			out = append(out, w)
		}
	}
	return out
}

// Quotas lists the roles with a quota, with use, or with something that waits, by path.
func (s *State) Quotas() []kernel.QuotaView {
	tree, views := s.capacity.tree(), map[string]*kernel.QuotaView{}
	for _, v := range tree.Views() {
		views[v.Role] = &v
	}
	for e := range s.queue.All {
		for role := e.Spec.Role; role != ""; role = kernel.ParentRole(role) {
			v := views[role]
			if v == nil {
				v = new(tree.View(role))
				views[role] = v
			}
			v.Waiting += len(e.Instances)
			v.Asks = v.Asks.Add(e.Spec.Need.Times(int64(len(e.Instances))))
			if role == e.Spec.Role && v.Why == "" {
				v.Why = s.refusal(e).String()
			}
		}
	}
	out := make([]kernel.QuotaView, 0, len(views))
	for _, role := range slices.Sorted(maps.Keys(views)) {
		out = append(out, *views[role])
	}
	return out
}

// Views shows machines and reservations as they are now.
func (s *State) Views() *Views {
	for id := range s.capacity.pool.Altered {
		s.views.alter(s.fleet.get(id))
	}
	return s.views.update(len(s.fleet.order), s.view, s.reservations.Views)
}

// view shows a machine.
func (s *State) view(a *agent) kernel.AgentView {
	used, instances := s.capacity.pool.Used(a.info.ID)
	v := kernel.AgentView{Agent: *a.info, Subnet: a.subnet, Connected: a.session != 0, Since: a.since, Away: a.away,
		Used: used, Instances: instances, Registered: a.registered, Reserved: a.reserved,
		Free: s.capacity.pool.Free(a.info.ID)}
	if v.Connected {
		v.Epoch = s.cfg.Epoch
	}
	if a.broken != "" {
		v.Warnings = append(append([]string(nil), v.Warnings...), a.broken)
	}
	return v
}

// Agents lists the machines, those longest known first.
func (s *State) Agents() []kernel.AgentView {
	out := make([]kernel.AgentView, len(s.fleet.order))
	for k, a := range s.fleet.order {
		out[k] = s.view(a)
	}
	return out
}

// Reservations lists the reservations of a framework by name.
func (s *State) Reservations(framework string) []kernel.ReservationView {
	return s.reservations.Views(framework)
}

// Addresses shows what each port with a VIP or a published service port offers.
func (s *State) Addresses() []*vip.View {
	var machines []netip.Addr
	for _, a := range s.fleet.order {
		if a.info.Address.IsValid() && a.away.IsZero() {
			machines = append(machines, a.info.Address)
		}
	}
	return vip.Views(func(yield func(*kernel.Endpoint) bool) {
		for _, part := range s.endpoints.All(s.fleet.instances) {
			for k := range part.Set {
				if !yield(&part.Set[k]) {
					return
				}
			}
		}
	}, machines)
}

// Pool shows the pool of container addresses.
func (s *State) Pool() subnet.Usage { return s.subnets.Usage() }
