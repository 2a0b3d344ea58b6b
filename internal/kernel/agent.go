package kernel

import (
	"net/netip"
	"time"
)

// AgentID names an agent for as long as its state directory lives.
type AgentID string

// Agent is a machine as its agent describes it when it registers.
type Agent struct {
	ID         AgentID           `json:"id"`
	Hostname   string            `json:"hostname"`
	Address    netip.Addr        `json:"address"` // where other machines reach this one
	Attributes map[string]string `json:"attributes,omitempty"`
	Region     string            `json:"region,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Total      Resources         `json:"total"` // what it gives to tasks, its own overhead taken off
	Ports      PortRange         `json:"ports"` // from which host ports are given out
	Version    string            `json:"version"`
	Kernel     string            `json:"kernel,omitempty"`  // the machine's kernel release
	Cgroup     string            `json:"cgroup,omitempty"`  // "v1" or "v2"
	Warnings   []string          `json:"warnings,omitzero"` // what limits this machine, for people

	// Bundles is the programs that Marina brings and this machine has: "kubernetes/v1.37" and their version, "v1.37.2".
	Bundles map[string]string `json:"bundles,omitempty"`
}

// UserNamespaces is the attribute by which an agent says "no" if it runs containers with the machine's own user ids.
const UserNamespaces = "user-namespaces"

// PortRange is the ports from First to Last, both included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// AgentView is an agent as the master sees it.
type AgentView struct {
	Agent
	Subnet    netip.Prefix `json:"subnet"`        // from which its instances get their addresses
	Connected bool         `json:"connected"`     // it has a live session
	Since     time.Time    `json:"since"`         // of that fact
	Away      time.Time    `json:"away,omitzero"` // unreachable since
	Used      Resources    `json:"used"`          // sum of guarantees placed on it
	Free      Resources    `json:"free"`          // for anybody: neither used, nor reserved, nor kept for what waits

	Reserved []ReservedPart `json:"reserved,omitempty"`

	Instances  int       `json:"groups"`          // placed on it
	Registered time.Time `json:"registered"`      // first seen
	Epoch      int64     `json:"epoch,omitempty"` // of the leader it talks to
}

// Removal lists what was given up with a machine that was removed from the datacenter.
type Removal struct {
	Machine   AgentID           `json:"machine"`
	Hostname  string            `json:"hostname"`
	Instances []InstanceID      `json:"groups"` // that ended with it
	Lost      []ReservationView `json:"lost"`   // reservations with volumes: what those held went with it
}

// Usage is a task's use of the machine, as its agent reads it when asked: GET /agent/v1/tasks/ID/usage.
type Usage struct {
	Private int64   `json:"private"` // bytes of memory that no process outside of it uses too
	Shared  int64   `json:"shared"`  // its proportional part of what others use too: program text, most of all
	CPU     float64 `json:"cpu"`     // cores, since the last time it was asked for, or over a moment
}
