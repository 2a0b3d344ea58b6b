package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/wire"
	"github.com/marinaos/marina/internal/scheduler"
)

// lookAgain is how often the kernel's queue and reservations are looked at while something waits.
const lookAgain = time.Second

// settle decides and carries out what follows for the clusters that were touched or whose time has come, and returns
// when to look again.
func (k *Clusters) settle(ctx context.Context) (time.Time, error) {
	if k.agenda.due(k.clusters, k.cfg.Now()) {
		k.stale = true
	}
	if k.stale {
		k.look()
	}
	names := k.agenda.take()
	for _, name := range names {
		c := k.clusters[name]
		if c == nil || c.parked != nil {
			continue
		}
		var wake time.Time
		err := k.fenced(name, func() (err error) { wake, err = k.settleOne(ctx, c); return err })
		if ends(err) {
			return time.Time{}, err
		}
		if err == nil {
			k.agenda.at(name, wake)
		}
	}
	if len(names) > 0 {
		k.announce()
	}
	return k.agenda.next(), nil
}

// announce wakes those who wait for something else to see.
func (k *Clusters) announce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.moved)
	k.moved = make(chan struct{})
}

// look reads the kernel's reservations and queue, and touches the clusters of which something is otherwise.
func (k *Clusters) look() {
	claims, queue, agents := k.cfg.Kernel.Reservations(Framework), k.cfg.Kernel.Queue(Framework), k.cfg.Kernel.Agents()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stale = false
	claimed := map[*member]*kernel.ReservationView{}
	for n := range claims {
		if name, member, ok := memberOf(claims[n].Name); ok && k.clusters[name] != nil {
			claimed[k.clusters[name].member(member)] = &claims[n]
		}
	}
	waiting := map[*member]*kernel.Waiting{}
	for n := range queue {
		name, member, ok := memberOf(queue[n].Key)
		if c := k.clusters[name]; ok && c != nil {
			m := c.member(member)
			if waiting[m] = &queue[n]; slices.Contains(queue[n].Instances, m.asked) {
				m.asked = ""
			}
		}
	}
	hosts := map[kernel.AgentID]string{}
	for _, a := range agents {
		if a.Address.IsValid() {
			hosts[a.ID] = a.Address.String()
		}
	}
	for name, c := range k.clusters {
		for _, m := range c.members {
			if !sameReservation(m.reservation, claimed[m]) || (m.waiting == nil) != (waiting[m] == nil) {
				k.agenda.touch(name)
			}
			m.reservation, m.waiting = claimed[m], waiting[m]
		}
		if plane := c.members[controlPlane]; plane != nil && plane.reservation != nil {
			if host := hosts[plane.reservation.Agent]; host != "" && host != c.machine {
				c.machine = host
				k.agenda.touch(name)
			}
		}
	}
}

func sameReservation(a, b *kernel.ReservationView) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Agent == b.Agent && a.Address == b.Address && a.Released == b.Released && a.Lost == b.Lost &&
		slices.Equal(a.HostPorts, b.HostPorts)
}

// settleOne brings one cluster as far as it comes now, and returns when to look at it again; zero: when something
// changes.
func (k *Clusters) settleOne(ctx context.Context, c *cluster) (time.Time, error) {
	now := k.cfg.Now()
	d, pending := k.decided(c, now)
	if err := k.carryOut(ctx, c, d); err != nil || d.Gone {
		return c.again("", buryStep), err
	}
	if err := k.balance(ctx, c, &d); err != nil {
		return time.Time{}, err
	}
	addr, want := k.planeOf(c)
	k.stewards.Attend(c.Name, c.ID, addr, want)
	if err := k.note(ctx, c); err != nil {
		return time.Time{}, err
	}
	if len(d.Launch)+len(d.Stop)+len(d.Release)+len(d.Withdraw) > 0 || pending {
		d.later(now.Add(lookAgain))
	}
	return d.Wake, nil
}

// decided is what to do for a cluster; pending: something of it changes without telling.
func (k *Clusters) decided(c *cluster, now time.Time) (d Decision, pending bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.mark(now)
	return decide(c, k.complete, now), c.pending()
}

// planeOf is where a cluster's control plane runs, if it does, and what its steward should know.
func (k *Clusters) planeOf(c *cluster) (addr netip.Addr, want *wire.Desired) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if plane := c.members[controlPlane]; plane != nil && c.Deleted.IsZero() {
		if _, ok := plane.running(); ok {
			addr = plane.instance.Address
		}
	}
	return addr, c.desired()
}

// note writes down when a cluster is ready for the first time, and tells changes of its state.
func (k *Clusters) note(ctx context.Context, c *cluster) error {
	now := k.cfg.Now()
	state := k.changedState(c, now)
	row := c.Row
	if state != Ready || !row.ReadyAt.IsZero() || now.Before(c.again("", rowStep)) {
		return nil
	}
	row.ReadyAt = now.UTC().Round(time.Millisecond)
	return k.save(ctx, c, row)
}

// changedState tells a change of a cluster's state, and returns the state.
func (k *Clusters) changedState(c *cluster, now time.Time) State {
	k.mu.Lock()
	defer k.mu.Unlock()
	state, _ := c.stand()
	if state != c.state {
		if c.state != "" {
			c.add(now, "is "+string(state))
			k.cfg.Log.Info("cluster changed", "cluster", c.Name, "state", string(state))
		}
		c.state = state
	}
	return state
}

// save makes a cluster's row durable when nobody asked for that: a refusal is the cluster's trouble.
func (k *Clusters) save(ctx context.Context, c *cluster, row Row) error {
	change := &scheduler.Change{}
	err := k.putRow(change, c, row)
	if err == nil {
		err = k.commit(ctx, change)
	}
	return k.settled(c, "", rowStep, err)
}

// over is an error after which this leadership's work is over: it was lost, or memory and store may differ. A read
// that fails is none, nor is what the kernel or the store refuse of one cluster.
type over struct{ error }

func (o over) Unwrap() error { return o.error }

func ends(err error) bool {
	_, is := errors.AsType[over](err)
	return is
}

// asked passes on the kernel's answer to a change, and marks one that means that this process does not lead.
func asked(err error) error {
	if scheduler.Ends(err) {
		return over{err}
	}
	return err
}

// settled notes what became of a step, and passes on only an error that ends this leadership's work.
func (k *Clusters) settled(c *cluster, member, what string, err error) error {
	if ends(err) {
		return fmt.Errorf("cluster %s: cannot %s%s: %w", c.Name, what, colon(member), err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		c.fail(member, what, err, k.cfg.Now())
	} else {
		c.mend(member, what)
	}
	return nil
}
