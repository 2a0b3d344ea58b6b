package core

import (
	"fmt"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/queue"
	"github.com/marinaos/marina/internal/master/reservation"
	"github.com/marinaos/marina/internal/master/spec"
	"github.com/marinaos/marina/internal/placement"
)

// capacity counts what is taken of machines and roles: the pool says where something fits, the quota tree who may have
// it.
type capacity struct {
	pool        *placement.Pool
	quota       allocator.Tree
	preemptible int // instances
}

func newCapacity(s kernel.Strategy) *capacity { return &capacity{pool: placement.NewPool(s)} }

// place counts an instance that was placed. Address, host ports and what its spec needs are the pool's already.
func (c *capacity) place(i *instance) {
	c.charge(i, i.need())
	if i.resized {
		c.pool.Adjust(i.agent.info.ID, i.spec.Fills(), i.need().Sub(i.spec.Need))
	}
	if i.spec.Preemptible() {
		c.preemptible++
	}
}

// release gives back what an instance took, but for address and host ports that its reservation keeps.
func (c *capacity) release(i *instance, reserved bool) {
	at := placement.Placement{Agent: i.agent.info.ID}
	if !reserved {
		g := i.Assignment()
		at.Address, at.HostPorts = g.Address, g.HostPorts
	}
	c.pool.Release(i.spec.Request, at)
	if i.resized {
		c.pool.Adjust(at.Agent, i.spec.Fills(), i.spec.Need.Sub(i.need()))
	}
	c.credit(i, i.need())
	if i.spec.Preemptible() {
		c.preemptible--
	}
}

// resize changes what an instance is counted with.
func (c *capacity) resize(i *instance, to kernel.Resources) {
	had := i.need()
	c.pool.Adjust(i.agent.info.ID, i.spec.Fills(), to.Sub(had))
	c.credit(i, had)
	c.charge(i, to)
}

func (c *capacity) charge(i *instance, r kernel.Resources) {
	c.quota.Charge(i.spec.Role, r, i.spec.Preemptible())
}

func (c *capacity) credit(i *instance, r kernel.Resources) {
	c.quota.Credit(i.spec.Role, r, i.spec.Preemptible())
}

// hold counts the volumes of a reservation without a holder, free ends that.
func (c *capacity) hold(r *reservation.Reservation) {
	c.pool.Adjust(r.Agent, r.Role, r.Needs())
	c.quota.Charge(r.Role, r.Needs(), false)
}

func (c *capacity) free(r *reservation.Reservation) {
	c.pool.Adjust(r.Agent, r.Role, r.Needs().Neg())
	c.quota.Credit(r.Role, r.Needs(), false)
}

// takeReserved takes all that a reservation without a holder keeps, as it was loaded; returnReserved gives it back.
func (c *capacity) takeReserved(r *reservation.Reservation) error {
	if err := c.pool.TakeReserved(r.At(), r.Role, r.Needs()); err != nil {
		return err
	}
	c.quota.Charge(r.Role, r.Needs(), false)
	return nil
}

func (c *capacity) returnReserved(r *reservation.Reservation) {
	c.pool.ReturnReserved(r.At(), r.Role, r.Needs())
	c.quota.Credit(r.Role, r.Needs(), false)
}

// setAside adds an amount to what a backfill keeps of its machine and quota.
func (c *capacity) setAside(sp *spec.Spec, b *queue.Backfill, r kernel.Resources) {
	c.pool.SetAside(b.Agent, r)
	if b.Charged {
		c.quota.SetAside(sp.Role, r)
	}
}

// tree is the quota tree, over what machines have now.
func (c *capacity) tree() *allocator.Tree {
	c.quota.Machines(c.pool.Total())
	return &c.quota
}

// admit asks the quota tree for n times each of what instances of a spec take: how many it lets in, why not more, and
// the role whose limit is in the way.
func (c *capacity) admit(sp *spec.Spec, each kernel.Resources, n int) (k int, why, limiting string) {
	return c.tree().Admit(sp.Role, each, n, sp.Preemptible())
}

// affords reports whether the quota tree lets another instance of a spec in, and why not.
func (c *capacity) affords(sp *spec.Spec) (bool, kernel.Refusal) {
	_, why, _ := c.admit(sp, sp.Need, 1)
	return why == "", kernel.Refusal{Quota: why}
}

// lacks says what an instance's machine and quota lack for it to have more; "" if nothing.
func (c *capacity) lacks(i *instance, more kernel.Resources) string {
	grows := more.Most(kernel.Resources{})
	if grows.IsZero() {
		return ""
	}
	free := c.pool.FreeFor(i.spec.Request, i.agent.info.ID)
	if short := (kernel.Quota{Limit: free.Most(kernel.Resources{})}).Within(kernel.Resources{}, grows); len(short) > 0 {
		return fmt.Sprintf("machine %s lacks %s: asks %s more, has %s free", i.agent.info.Hostname, short[0], more, free)
	}
	_, why, _ := c.admit(i.spec, grows, 1)
	return why
}
