package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Kernel is the contract that schedulers hold. It places, starts, stops and watches instances; it never decides how
// many there should be. Every method that changes something answers nil only after the change is durable on a quorum;
// an error of kind errdefs.ErrUnavailable means that this process does not lead (any more) and nothing is known of
// the outcome.
type Kernel interface {
	// Launch asks for the request's instances. What fits now is placed before it returns; the rest waits in the queue
	// under the request's Key and is placed as room appears, without being asked again. Instance ids already placed or
	// waiting are left alone, so repeating a request is harmless. An id that has ended is never launched again.
	Launch(ctx context.Context, r LaunchRequest) (LaunchResult, error)

	// Withdraw takes instances that still wait under key out of the queue, all with nil, and returns those: others were
	// placed before, have ended, or were never asked for.
	Withdraw(ctx context.Context, framework, key string, instances []InstanceID) ([]InstanceID, error)

	// Stop asks for instances to be ended, gracefully, each within its kill grace. Unknown ones are ignored.
	Stop(ctx context.Context, framework string, instances []InstanceID, why string) error

	// Forget gives up instances whose agent is away: they count no more, and are stopped should the agent return. It is
	// refused with errdefs.ErrFailedPrecondition for instances whose agent is connected and while the brake holds (too
	// large a share of the agents is away at once).
	Forget(ctx context.Context, framework string, instances []InstanceID) error

	// Resize changes what a placed instance's tasks are guaranteed and limited to, one Size for each, while they run. It
	// is refused with errdefs.ErrResourceExhausted, and a sentence with numbers, when the quota or the instance's machine
	// has not enough.
	Resize(ctx context.Context, framework string, instance InstanceID, sizes []Size) error

	// Release frees reservations: volumes are deleted, addresses and ports may be given to others. It is refused with
	// errdefs.ErrFailedPrecondition while an instance with the reservation is placed or waits. Unknown ones are ignored.
	// The agent deletes when it hears of it; Reservations tells until it has. A reservation that is Lost is gone at once,
	// and then instances that wait for it may stay: they are placed with a new one.
	Release(ctx context.Context, framework string, claims []string) error

	// Reservations tells the reservations of a framework, from memory: all that was decided before any answer or change
	// that the caller has. The list is shared: nobody changes it.
	Reservations(framework string) []ReservationView

	// Expose gives all instances of an owner further ports, beside those of their specs, and returns them with the
	// addresses of their VIPs; nil takes them away. They have no host ports. They are kept until they are changed.
	Expose(ctx context.Context, framework, owner string, ports []Port) ([]EndpointPort, error)

	// Watch begins with all instances of a framework and goes on with every change.
	Watch(framework string) InstanceWatch

	// Queue tells what of a framework waits, and why.
	Queue(framework string) []Waiting

	// Agents tells the machines of the datacenter, from memory, as Reservations does. The list is shared: nobody changes
	// it.
	Agents() []AgentView
}

// LaunchRequest asks for instances of one spec.
type LaunchRequest struct {
	// names the queue entry, unique in the framework: "/prod/web@2026-11-23T10:00:00.000Z"
	Key       string       `json:"key"`
	Spec      Spec         `json:"spec"` // sealed
	Instances []InstanceID `json:"groups"`
}

// LaunchResult tells what became of a request.
type LaunchResult struct {
	Placed  []*Record
	Waiting int
	Refusal *Refusal // why the rest waits
}

// Waiting is one entry of the queue.
type Waiting struct {
	Key       string       `json:"key"`
	Owner     string       `json:"owner"`
	Version   string       `json:"version"`
	Instances []InstanceID `json:"groups"`
	Since     time.Time    `json:"since"`
	Refusal   Refusal      `json:"refusal"` // why it waits now
	Tries     int          `json:"tries"`

	Priority int    `json:"priority,omitempty"`
	Backfill string `json:"hold,omitempty"` // the hostname of a machine on which room is kept for one of the instances
}

// InstanceWatch delivers the instances of a framework. A slow reader gets fewer, newer values and never a gap:
// changes of one instance are merged until read. An instance that ended is delivered with Removed set at least once.
type InstanceWatch interface {
	// Next waits for changes and returns them, at most one per instance. The first call returns all instances there are,
	// and with it whether every agent known to the store has reported since this leader began (Complete).
	// Its error is ctx's, or errdefs.ErrUnavailable once leadership is lost.
	Next(ctx context.Context) (Changes, error)
	// Close ends the watch.
	Close()
}

// Follow hands what a watch delivers to out until ctx or the watch ends, and returns why; it never returns nil.
func Follow(ctx context.Context, w InstanceWatch, out chan<- Changes) error {
	for {
		c, err := w.Next(ctx)
		if err != nil {
			return fmt.Errorf("watch instances: %w", err)
		}
		select {
		case out <- c:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Changes are delivered by an InstanceWatch.
type Changes struct {
	Instances []*Record
	// Complete is false for a while after a change of leader: agents have yet to report. Decisions that kill or replace
	// because something is missing wait for it.
	Complete bool
	// Room tells that an agent joined, returned or freed resources, or a quota rose.
	Room bool
}

// ReservationView is a reservation as the master keeps it.
type ReservationView struct {
	Reservation
	Framework string     `json:"framework"`
	Role      string     `json:"role"`
	Agent     AgentID    `json:"agent"`
	Address   netip.Addr `json:"address,omitzero"`
	HostPorts []uint16   `json:"hostPorts,omitempty"`
	Released  bool       `json:"released,omitempty"` // its agent has yet to delete it

	// Lost is set once its machine was removed from the datacenter: what its volumes held went with that. It counts
	// against nothing, address and ports may be others' by now, instances wait for it in vain, and only its owner can tell
	// whether to begin anew: Release makes its name free at once.
	Lost bool `json:"lost,omitempty"`
}
