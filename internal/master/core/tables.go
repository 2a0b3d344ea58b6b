package core

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/ended"
	"github.com/marinaos/marina/internal/master/endpoint"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/master/expose"
	"github.com/marinaos/marina/internal/master/interner"
	"github.com/marinaos/marina/internal/master/queue"
	"github.com/marinaos/marina/internal/master/removed"
	"github.com/marinaos/marina/internal/master/reservation"
	"github.com/marinaos/marina/internal/master/row"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/master/subnet"
	"github.com/marinaos/marina/internal/master/vip"
)

// tables hold all that a leader knows. Each owns its fields; the methods here and in instance.go concern several of
// them at once.
type tables struct {
	cfg  Config
	now  time.Time // of this step
	step step

	fleet        *fleet
	removed      *removed.Machines
	subnets      *subnet.Pool
	capacity     *capacity
	specs        *spec.Table
	instances    *kernel.Index[*instance]
	reservations *reservation.Table
	exposed      *expose.Table
	vips         *vip.Table
	endpoints    *endpoint.Log[*instance]
	queue        *queue.Queue
	ended        ended.IDs
	past         ended.Past
	interner     interner.Interner
	views        *views
}

// init makes all tables empty.
func (t *tables) init(cfg Config) {
	t.cfg = cfg
	t.step.rows = map[row.Row]struct{}{}
	t.fleet, t.removed, t.views, t.queue = newFleet(), removed.New(), newViews(), queue.New()
	t.capacity = newCapacity(cfg.Strategy)
	t.subnets = subnet.New(cfg.Pool, cfg.SubnetBits)
	t.instances, t.endpoints = kernel.NewIndex[*instance](), endpoint.NewLog[*instance](cfg.EndpointLog)
	t.vips = vip.New(cfg.VIPs, cfg.VIPKeep, func(name string) { t.step.dirty(row.Row{Kind: row.VIP, ID: name}) })
	t.exposed = expose.New(t.vips)
	t.specs = spec.New(t.capacity.pool, t.vips, t.exposed, func(id kernel.SpecID) {
		t.step.dirty(row.Row{Kind: row.Spec, ID: string(id)})
	})
	t.reservations = reservation.New(func(c *reservation.Reservation) {
		t.step.dirty(row.Row{Kind: row.Reservation, ID: c.ID()})
		t.views.outdate(c.Framework)
	})
}

func (t *tables) instance(id kernel.InstanceID) *instance {
	i, _ := t.instances.Get(id)
	return i
}

// refresh shows an agent as it is now in the records of all its instances.
func (t *tables) refresh(a *agent) {
	if !a.refreshSite() {
		return
	}
	for i := range a.each {
		i.Record = i.At(a.site, i.Known())
		t.change(i)
	}
}

// giveSubnet gives an agent a subnet of the pool, if it has none and there is one.
func (t *tables) giveSubnet(a *agent) {
	if !a.subnet.IsValid() {
		a.subnet = t.subnets.Give(a.info.ID)
	}
}

// giveSubnets gives the agents that joined while there was none a subnet, as far as there are some now, and tells them.
func (t *tables) giveSubnets() {
	for _, a := range t.fleet.order {
		if a.subnet.IsValid() || a.broken != "" {
			continue
		}
		if t.giveSubnet(a); !a.subnet.IsValid() {
			return
		}
		t.capacity.pool.Set(a.machine())
		t.views.alter(a)
		t.step.dirty(a.row())
		t.step.outbox(a).sync = true
		t.step.capacityAppeared()
	}
}

// dropReservation forgets a reservation that takes nothing any more.
func (t *tables) dropReservation(c *reservation.Reservation) {
	t.reservations.Drop(c)
	t.step.capacityAppeared()
}

// loseReservation marks the reservation of a removed machine as lost, and reports whether there was something to lose.
func (t *tables) loseReservation(c *reservation.Reservation) bool {
	lost := t.reservations.MarkLost(c)
	if !lost {
		t.step.capacityAppeared()
	}
	return lost
}

// usedWithin sums up what instances and reservations of a role, and of those below it, use of a machine and may use of
// the part reserved for the role.
func (t *tables) usedWithin(a *agent, role string) (used kernel.Resources) {
	for i := range a.each {
		if i.spec.Reserved != kernel.ReservedNone && kernel.Within(i.spec.Role, role) {
			used = used.Add(i.need())
		}
	}
	for c := range t.reservations.All {
		if c.Agent == a.info.ID && c.Holder() == "" && kernel.Within(c.Role, role) {
			used = used.Add(c.Needs())
		}
	}
	return used
}

// setExposed puts further ports in place of those that an owner had, and sends its endpoints again.
func (t *tables) setExposed(of *expose.Row, ports *expose.Ports) {
	t.exposed.Set(of.Framework, of.Owner, ports, t.now)
	t.specs.Expose(of.Framework, of.Owner, t.exposed.Given(of.Framework, of.Owner))
	for i := range t.fleet.instances {
		if i.Owner == of.Owner && i.Framework == of.Framework {
			t.endpoints.Moved(i)
			t.change(i)
		}
	}
}

// dismiss tells a session, by its frame seq, that its machine was removed.
func (t *tables) dismiss(session event.SessionID, seq uint64, id kernel.AgentID) {
	down := t.removed.Dismiss(session, seq, id)
	down.Epoch = t.cfg.Epoch
	t.step.send(Send{Session: session, Down: down})
}

// refusal says why the instances of an entry wait.
func (t *tables) refusal(e *queue.Entry) kernel.Refusal {
	return t.queue.Refusal(e, t.now, len(t.fleet.order), t.capacity.pool.Explain)
}

// keep keeps a machine for an entry, endBackfill ends that and returns what was kept, nil for nothing.
func (t *tables) keep(e *queue.Entry, b *queue.Backfill) {
	t.queue.Keep(e, b)
	t.capacity.setAside(e.Spec, b, e.Spec.Need)
}

func (t *tables) endBackfill(e *queue.Entry) *queue.Backfill {
	b := t.queue.EndBackfill(e)
	if b != nil {
		t.capacity.setAside(e.Spec, b, e.Spec.Need.Neg())
	}
	return b
}
