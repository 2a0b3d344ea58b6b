package invariant

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Process is a task's process as the machine knows it: the ground truth, never what a master believes.
type Process struct {
	Task    kernel.TaskID
	Agent   kernel.AgentID
	Boot    string // of the machine
	PID     int
	Started time.Time
}

// Identities judges I8: a task has one process for all its life, through restarts of agents, masters and runtimes. The
// zero value is ready.
type Identities struct{ known map[kernel.TaskID]Process }

// Observe takes the record of a process that was seen alive, as often as it is seen.
func (i *Identities) Observe(p Process) []Violation {
	old, ok := i.known[p.Task]
	if !ok {
		if i.known == nil {
			i.known = map[kernel.TaskID]Process{}
		}
		i.known[p.Task] = p
		return nil
	}
	if old.Agent == p.Agent && old.Boot == p.Boot && old.PID == p.PID && old.Started.Equal(p.Started) {
		return nil
	}
	return violated(I8OneProcess, "task %s was pid %d of %s since %s (boot %s) and is pid %d of %s since %s (boot %s)",
		p.Task, old.PID, old.Agent, stamp(old.Started), old.Boot, p.PID, p.Agent, stamp(p.Started), p.Boot)
}

// Terminals judges I10: once a task was reported as ended, nothing else is ever reported of it. Reports are those that
// readers of the kernel see, not the frames on the wire, which repeat. The zero value is ready.
type Terminals struct {
	ended map[kernel.TaskID]kernel.State
}

// Observe takes the next reported state of a task.
func (t *Terminals) Observe(task kernel.TaskID, s kernel.State) []Violation {
	if old, ok := t.ended[task]; ok {
		if old == s {
			return nil
		}
		return violated(I10TerminalStays, "task %s had ended as %v and is reported as %v", task, old, s)
	}
	if s.Terminal() {
		if t.ended == nil {
			t.ended = map[kernel.TaskID]kernel.State{}
		}
		t.ended[task] = s
	}
	return nil
}

// Intents judges I12: a container exists only if it was assigned to its machine by a durable intent before. The zero
// value is ready.
type Intents struct {
	durable map[kernel.InstanceID]kernel.AgentID
}

// Durable tells that instance is assigned to agent at a committed revision. An instance is assigned to one agent ever:
// the second one is a violation of I14, since its tasks' ids would name two things.
func (i *Intents) Durable(group kernel.InstanceID, agent kernel.AgentID, revision int64) []Violation {
	old, ok := i.durable[group]
	if !ok {
		if i.durable == nil {
			i.durable = map[kernel.InstanceID]kernel.AgentID{}
		}
		i.durable[group] = agent
		return nil
	}
	if old == agent {
		return nil
	}
	return violated(I14Exclusive, "group %s was assigned to agent %s and is assigned to agent %s at revision %d",
		group, old, agent, revision)
}

// Exists tells that a container of group was made on agent.
func (i *Intents) Exists(group kernel.InstanceID, agent kernel.AgentID) []Violation {
	if old, ok := i.durable[group]; ok && old == agent {
		return nil
	} else if ok {
		return violated(I12IntentFirst, "agent %s has a container of group %s, which is assigned to %s", agent, group, old)
	}
	return violated(I12IntentFirst, "agent %s has a container of group %s, of which there is no durable intent",
		agent, group)
}

// Orphans judges I11: a container that no intent explains is gone within Limit, counted while its agent is connected.
type Orphans struct {
	Limit    time.Duration
	suspects []suspect // few: those between losing their intent and their end
}

type suspect struct {
	agent kernel.AgentID
	group kernel.InstanceID
	since time.Time // unexplained and connected since; zero: not connected
}

// Unexplained tells that a container runs without an intent since now. connected is whether its agent has a session.
func (o *Orphans) Unexplained(agent kernel.AgentID, group kernel.InstanceID, connected bool, now time.Time) {
	s := suspect{agent: agent, group: group}
	if connected {
		s.since = now
	}
	for i := range o.suspects {
		if o.suspects[i].agent == agent && o.suspects[i].group == group {
			return
		}
	}
	o.suspects = append(o.suspects, s)
}

// Settled tells that a container ended or has an intent.
func (o *Orphans) Settled(agent kernel.AgentID, group kernel.InstanceID) {
	for i := range o.suspects {
		if o.suspects[i].agent == agent && o.suspects[i].group == group {
			o.suspects = append(o.suspects[:i], o.suspects[i+1:]...)
			return
		}
	}
}

// Connected tells that an agent got a session, or lost it: the limit counts anew from each connection.
func (o *Orphans) Connected(agent kernel.AgentID, connected bool, now time.Time) {
	for i := range o.suspects {
		if s := &o.suspects[i]; s.agent == agent {
			if s.since = (time.Time{}); connected {
				s.since = now
			}
		}
	}
}

// Judge answers with the containers that are overdue.
func (o *Orphans) Judge(now time.Time) (out []Violation) {
	for _, s := range o.suspects {
		if !s.since.IsZero() && now.Sub(s.since) > o.Limit {
			out = append(out, violated(I11NoOrphan, "agent %s runs group %s, which nothing asks for, for %v since it is connected: the limit is %v",
				s.agent, s.group, now.Sub(s.since), o.Limit)...)
		}
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// SharedPort is I14 on a machine: an instance was given a host port that another one, which is not about to stop,
// listens on.
func SharedPort(agent kernel.AgentID, group, holder kernel.InstanceID) []Violation {
	return violated(I14Exclusive, "agent %s is to give group %s a host port that group %s holds and keeps",
		agent, group, holder)
}
