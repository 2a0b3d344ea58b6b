package kernel

import (
	"fmt"
	"strings"
)

// Refusal explains why something could not be placed, in numbers.
type Refusal struct {
	Agents  int        `json:"agents"`            // looked at
	Reasons []Rejected `json:"reasons,omitempty"` // first filter that rejected, in the order they were asked
	Quota   string     `json:"quota,omitempty"`   // set when the quota tree refused, before any agent was looked at
}

// Rejected counts the agents that one filter turned down, and names the nearest miss.
type Rejected struct {
	// "unreachable", "constraint rack:UNLIKE:r1", "reservation", "cpus", "mem", "disk", "gpus", "ports", "address"
	Filter string `json:"filter"`
	Agents int    `json:"agents"`
	Detail string `json:"detail,omitempty"` // "asks 64 GiB, the most free on one machine is 20 GiB"
}

// String is one sentence for people: "0 of 3 machines fit: 2 lack mem (asks 64 GiB, the most free is 20 GiB), 1
// unreachable".
func (r Refusal) String() string {
	if r.Quota != "" {
		return r.Quota
	}
	if r.Agents == 0 {
		return "no machine has joined yet"
	}
	parts := make([]string, 0, len(r.Reasons))
	for _, c := range r.Reasons {
		var s string
		switch c.Filter {
		case "cpus", "mem", "disk", "gpus":
			s = fmt.Sprintf("%d lack %s", c.Agents, c.Filter)
		case "unreachable":
			s = fmt.Sprintf("%d unreachable", c.Agents)
		default:
			s = fmt.Sprintf("%d fail %s", c.Agents, c.Filter)
		}
		if c.Detail != "" {
			s += " (" + c.Detail + ")"
		}
		parts = append(parts, s)
	}
	return fmt.Sprintf("0 of %d machines fit: %s", r.Agents, strings.Join(parts, ", "))
}
