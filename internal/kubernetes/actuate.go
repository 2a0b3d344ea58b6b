package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/core"
)

// actuator asks the kernel for what was decided, and tells the cluster what became of it. Its errors end this
// leadership's work; everything else that goes wrong is the cluster's trouble. The owner goroutine has it.
type actuator struct {
	kernel kernel.Kernel
	of     *guarded
	now    func() time.Time
	newID  func() string
}

// carryOut makes the kernel's part of a decision real, but for what is exposed.
func (a *actuator) carryOut(ctx context.Context, c *core.Cluster, d core.Decision) error {
	for _, m := range d.Withdraw {
		if _, err := a.kernel.Withdraw(ctx, Framework, core.ReservationName(c.Name, m), nil); err != nil {
			return over{fmt.Errorf("cluster %s: withdraw %s: %w", c.Name, m, err)}
		}
	}
	for _, why := range slices.Sorted(maps.Keys(d.Stop)) {
		if err := a.kernel.Stop(ctx, Framework, d.Stop[why], why); err != nil {
			return over{fmt.Errorf("cluster %s: stop: %w", c.Name, err)}
		}
		a.of.write(func() { c.Stopped(d.Stop[why], why, a.now()) })
	}
	for _, m := range d.Launch {
		if err := a.launch(ctx, c, m); err != nil {
			return err
		}
	}
	for id, sizes := range d.Resize {
		if err := a.resize(ctx, c, id, sizes); err != nil {
			return err
		}
	}
	for _, m := range d.Release {
		err := a.kernel.Release(ctx, Framework, []string{core.ReservationName(c.Name, m)})
		if err := a.settle(c, m, core.ReleaseStep, asked(err)); err != nil {
			return err
		}
	}
	return nil
}

// launch starts a member. What cannot be asked for, or the kernel refuses, is the cluster's problem.
func (a *actuator) launch(ctx context.Context, c *core.Cluster, member string) error {
	id := kernel.InstanceID(core.InstancePrefix(c.Name, member) + a.newID())
	var result kernel.LaunchResult
	spec, err := c.Spec(member)
	if err == nil {
		result, err = a.kernel.Launch(ctx, kernel.LaunchRequest{Key: core.ReservationName(c.Name, member), Spec: spec,
			Instances: []kernel.InstanceID{id}})
		err = asked(err)
	}
	if ends(err) {
		return fmt.Errorf("cluster %s: launch %s: %w", c.Name, member, err)
	}
	a.of.write(func() { c.Launched(member, id, result, err, a.now()) })
	return nil
}

func (a *actuator) resize(ctx context.Context, c *core.Cluster, id kernel.InstanceID, sizes []kernel.Size) error {
	err := asked(a.kernel.Resize(ctx, Framework, id, sizes))
	if ends(err) {
		return fmt.Errorf("cluster %s: resize: %w", c.Name, err)
	}
	a.of.write(func() { c.Resized(id, sizes[0], err, a.now()) })
	return nil
}

// expose has the kernel expose what load balancers ask for.
func (a *actuator) expose(ctx context.Context, c *core.Cluster, x *core.Exposure) error {
	ports, err := a.kernel.Expose(ctx, Framework, core.NodesOwner(c.Name), x.Ports)
	if err = asked(err); ends(err) {
		return fmt.Errorf("cluster %s: cannot %s: %w", c.Name, core.ExposeStep, err)
	}
	a.of.write(func() { c.Exposed(x, ports, err, a.now()) })
	return nil
}

// settle notes what became of a step, and passes on only an error that ends this leadership's work.
func (a *actuator) settle(c *core.Cluster, member string, step core.Step, err error) error {
	if ends(err) {
		if member != "" {
			member = ": " + member
		}
		return fmt.Errorf("cluster %s: cannot %s%s: %w", c.Name, step, member, err)
	}
	a.of.write(func() { c.Settle(member, step, err, a.now()) })
	return nil
}
