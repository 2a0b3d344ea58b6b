package kernel

import (
	"net/netip"
	"time"
)

// The agent dials the master (TLS, ALPN Protocol, certificates on both sides) and then serves HTTP/2 on that
// connection: the master is the client. The session is one request, POST SessionPath: its body is a stream of Down
// frames, its answer a stream of Up frames, each one JSON value on a line. Exec, logs and files are further requests
// on the same connection.
const (
	Protocol    = "marina-agent/1"
	SessionPath = "/agent/v1/session"
	SecretsPath = "/secrets/v1/" // on the master's own address, for agents: GET SecretsPath + reference is a Secret
	MaxFrame    = 8 << 20        // bytes of one frame

	HeartbeatInterval = 500 * time.Millisecond // an agent is never silent for longer
)

// Down is a frame from master to agent. Seq rises by one within a session's epoch; an agent applies a frame once, in
// order, and ends the session on a gap. A frame whose Epoch is lower than the highest the agent has seen (it keeps
// that on disk) is refused and ends the session.
type Down struct {
	Epoch int64  `json:"epoch"`
	Seq   uint64 `json:"seq"`

	// Sync starts a session, after frames of nothing but Specs if there are many, or repairs one: Groups is then
	// everything assigned to the agent, and a group that is not in it is to be stopped and forgotten. Otherwise
	// Assignments holds additions and changes, Drop removals.
	Sync bool `json:"sync,omitempty"`
	// those Assignments need and the agent has not been sent in this session
	Specs       []Spec       `json:"specs,omitempty"`
	Assignments []Assignment `json:"groups,omitempty"`
	Drop        []InstanceID `json:"drop,omitempty"`

	// Removed, with a Sync of nothing, says that the machine was removed from the datacenter, and what to do: all its
	// tasks are to end, and it is given nothing more.
	Removed string `json:"removed,omitempty"`

	Subnet  netip.Prefix `json:"subnet,omitzero"` // with Sync: where this agent's groups live
	Network *NetworkInfo `json:"network,omitempty"`

	// Release is reservations, as FRAMEWORK/NAME, whose volumes are to be deleted; told again in every session until
	// Released.
	Release []string `json:"release,omitempty"`

	Acks []StatusAck `json:"acks,omitempty"` // terminal statuses that are durable: the agent may forget the tasks

	// Endpoints is a change of the datacenter's endpoints; see EndpointDelta.
	Endpoints *EndpointDelta `json:"endpoints,omitempty"`
}

// NetworkInfo describes the datacenter's network to an agent.
type NetworkInfo struct {
	Pool netip.Prefix `json:"pool"` // all container addresses of the datacenter
	VIPs netip.Prefix `json:"vips"` // all named VIPs
}

// StatusAck acknowledges a task's status and all before it.
type StatusAck struct {
	Task TaskID `json:"task"`
	Seq  uint64 `json:"seq"`
}

// EndpointDelta turns the endpoints of version From into those of version To. Full replaces all; a full set too large
// for one frame comes in several, all of them Full and all but the last with More set: it takes effect whole, with
// the last.
type EndpointDelta struct {
	From   uint64     `json:"from"`
	To     uint64     `json:"to"`
	Full   bool       `json:"full,omitempty"`
	More   bool       `json:"more,omitempty"`
	Set    []Endpoint `json:"set,omitempty"`
	Remove []TaskID   `json:"remove,omitempty"`
}

// Up is a frame from agent to master. The first of a session carries Register.
type Up struct {
	Seq      uint64        `json:"seq"`
	Register *Registration `json:"register,omitempty"`
	Statuses []Status      `json:"statuses,omitempty"`
	Applied  uint64        `json:"applied,omitempty"`  // highest Down.Seq applied
	Released []string      `json:"released,omitempty"` // reservations of which nothing is left
	// A frame with none of these is a heartbeat. Agents send at least one frame each HeartbeatInterval.
}

// Registration introduces an agent to its master.
type Registration struct {
	Agent       Agent    `json:"agent"`
	Incarnation string   `json:"incarnation"` // drawn anew by each start of the agent process
	Boot        string   `json:"boot"`        // the machine's boot id
	Epoch       int64    `json:"epoch"`       // highest it has seen
	Endpoints   uint64   `json:"endpoints"`   // version of the endpoints it holds, under Epoch; zero: none
	Statuses    []Status `json:"statuses"`    // of every task it has, ended ones that were not acknowledged included
}

// Secret holds the files that a reference of File.Secret stands for, by name.
type Secret struct {
	Files map[string][]byte `json:"files"`
}
