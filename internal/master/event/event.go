package event

import (
	"net/netip"

	"github.com/marinaos/marina/internal/kernel"
)

// SessionID names one connection of an agent under one leader. Whoever feeds events chooses it; a later session has a
// higher one.
type SessionID uint64

// RequestID ties a Reply to the request event that it answers. Whoever feeds events chooses it.
type RequestID uint64

// Event is something that happened. The types below are all there are.
type Event interface{ event() }

// AgentUp is a session that opened with a registration. Seq is that frame's.
type AgentUp struct {
	Session      SessionID
	Seq          uint64
	Registration kernel.Registration
}

// Frame is a later frame of a session: statuses, or a heartbeat.
type Frame struct {
	Session SessionID
	Up      kernel.Up
}

// AgentDown is a session that was lost, or ended by a SessionEnd.
type AgentDown struct {
	Session SessionID
	Why     string
}

// Launch is Kernel.Launch; its reply's Launch is set.
type Launch struct {
	Request RequestID
	kernel.LaunchRequest
}

// Withdraw is Kernel.Withdraw.
type Withdraw struct {
	Request   RequestID
	Framework string
	Key       string
	Instances []kernel.InstanceID // nil: all of Key
}

// Stop is Kernel.Stop.
type Stop struct {
	Request   RequestID
	Framework string
	Instances []kernel.InstanceID
	Why       string
}

// Forget is Kernel.Forget.
type Forget struct {
	Request   RequestID
	Framework string
	Instances []kernel.InstanceID
}

// Resize is Kernel.Resize.
type Resize struct {
	Request   RequestID
	Framework string
	Instance  kernel.InstanceID
	Sizes     []kernel.Size
}

// Release is Kernel.Release.
type Release struct {
	Request      RequestID
	Framework    string
	Reservations []string
}

// Expose is Kernel.Expose; its reply's Exposed is set.
type Expose struct {
	Request   RequestID
	Framework string
	Owner     string
	Ports     []kernel.Port // nil: none
}

// SetQuota gives a role a quota in place of the one it had, or takes it away.
type SetQuota struct {
	Request RequestID
	Quota   kernel.Quota
	Remove  bool // the quota of its Role
	Force   bool // guarantees may be more than all machines have
}

// Reserve keeps an amount of a machine for a role, in place of what it had; zero keeps nothing any more.
type Reserve struct {
	Request RequestID
	Agent   kernel.AgentID
	kernel.ReservedPart
}

// RemoveAgent takes a machine out of the datacenter for good; its reply's Removal is set. While it may be running
// something it is refused without Force.
type RemoveAgent struct {
	Request RequestID
	Agent   kernel.AgentID
	Force   bool
}

// SetPool changes the pool of container addresses, from which machines get their subnets, to another that has all of
// the configured one and every subnet that was given out.
type SetPool struct {
	Request RequestID
	Pool    netip.Prefix
}

// Tick is time passing: it is due at Effects.Wake, and harmless at any other time.
type Tick struct{}

func (AgentUp) event()     {}
func (Frame) event()       {}
func (AgentDown) event()   {}
func (Launch) event()      {}
func (Withdraw) event()    {}
func (Stop) event()        {}
func (Forget) event()      {}
func (Resize) event()      {}
func (Release) event()     {}
func (Expose) event()      {}
func (SetQuota) event()    {}
func (Reserve) event()     {}
func (RemoveAgent) event() {}
func (SetPool) event()     {}
func (Tick) event()        {}

// Numbered is a request event with its id; other events have none.
func Numbered(ev Event, id RequestID) Event {
	switch ev := ev.(type) {
	case Launch:
		ev.Request = id
		return ev
	case Withdraw:
		ev.Request = id
		return ev
	case Stop:
		ev.Request = id
		return ev
	case Forget:
		ev.Request = id
		return ev
	case Resize:
		ev.Request = id
		return ev
	case Release:
		ev.Request = id
		return ev
	case Expose:
		ev.Request = id
		return ev
	case SetQuota:
		ev.Request = id
		return ev
	case Reserve:
		ev.Request = id
		return ev
	case RemoveAgent:
		ev.Request = id
		return ev
	case SetPool:
		ev.Request = id
		return ev
	}
	return ev
}
