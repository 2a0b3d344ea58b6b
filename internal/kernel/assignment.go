package kernel

import (
	"fmt"
	"net/netip"
	"time"
)

// InstanceID names one instance of a spec. The scheduler chooses it and never uses it again: "prod_web.instance-UUID".
type InstanceID string

// TaskID names one task of an instance: the instance's id and the task's suffix.
type TaskID string

// Goal says whether an instance should run.
type Goal string

// The goals. An instance that is no longer mentioned at all is stopped and forgotten.
const (
	GoalRun  Goal = "run"
	GoalStop Goal = "stop"
)

// Assignment is an instance as the master placed it. All but Sizes, Goal and Why is fixed at placement.
type Assignment struct {
	ID        InstanceID `json:"id"`
	Spec      SpecID     `json:"spec"`
	Address   netip.Addr `json:"address,omitzero"`    // bridge mode: the instance's own; host mode: none
	HostPorts []uint16   `json:"hostPorts,omitempty"` // one for each of the spec's Ports; zero: none
	Placed    time.Time  `json:"placed"`              // leader's clock, for people only
	Sizes     []Size     `json:"sizes,omitempty"`     // one for each of the spec's Tasks, if they were changed since
	Goal      Goal       `json:"goal"`
	Why       string     `json:"why,omitempty"` // why it is to stop, for people
}

// Size replaces the Guarantee and Limit of a task's spec.
type Size struct {
	Guarantee Resources `json:"guarantee"`
	Limit     Resources `json:"limit"` // as TaskSpec.Limit
}

// Size returns the present size of the instance's i-th task: its spec's, or the one it was changed to.
func (g *Assignment) Size(s *Spec, i int) Size {
	if i < len(g.Sizes) {
		return g.Sizes[i]
	}
	return Size{s.Tasks[i].Guarantee, s.Tasks[i].Limit}
}

// Guarantee returns what the instance takes from its agent: its spec's, or as it was resized.
func (g *Assignment) Guarantee(s *Spec) Resources {
	sum := Resources{Disk: s.Reservation.Disk()}
	for i := range s.Tasks {
		sum = sum.Add(g.Size(s, i).Guarantee)
	}
	return sum
}

// State is a task's state, in Mesos's words.
type State uint8

// The states, in the order a task passes them. Those after Killing are terminal and never change again.
const (
	Staging  State = iota // assigned, nothing reported yet, or its image is being fetched
	Starting              // its container is being made
	Running
	Killing
	Finished // exited with 0 by itself
	Failed   // exited otherwise, was killed for its memory, or could not start
	Killed   // stopped because it was told to
	Error    // can never run: the spec is wrong for this machine
	Lost     // was running before its machine went down
	Gone     // its agent was given up
)

var stateNames = [...]string{"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_FINISHED",
	"TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_GONE"}

// Terminal reports whether the task has ended.
func (s State) Terminal() bool { return s > Killing }

// String is the Mesos name: "TASK_RUNNING".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("TASK_STATE_%d", s)
}

// MarshalText writes the Mesos name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the Mesos name.
func (s *State) UnmarshalText(b []byte) error {
	for i, n := range stateNames {
		if n == string(b) {
			*s = State(i)
			return nil
		}
	}
	return invalid("task state %q", b)
}

// Reason is why a task is in its state, for programs.
type Reason string

// The reasons.
const (
	ReasonNone      Reason = ""
	ReasonExit      Reason = "exit"       // its process ended by itself
	ReasonOOM       Reason = "oom"        // it used more memory than its limit
	ReasonDisk      Reason = "disk"       // it wrote more than its limit
	ReasonKilled    Reason = "killed"     // a scheduler stopped it
	ReasonImage     Reason = "image"      // its image cannot be had
	ReasonPort      Reason = "port"       // a host port is taken by somebody else
	ReasonRuntime   Reason = "runtime"    // its container could not be made
	ReasonReboot    Reason = "reboot"     // its machine started anew
	ReasonVanished  Reason = "vanished"   // its container was gone after the agent's restart
	ReasonUnhealthy Reason = "unhealthy"  // it failed its checks
	ReasonAgentGone Reason = "agent-gone" // its agent was given up
)

// Status is an agent's report on one task. Seq rises by one with each status of a task and survives the agent, so
// that a repeated or late one is recognized; a terminal status is repeated until acknowledged.
type Status struct {
	Task     TaskID     `json:"task"`
	Instance InstanceID `json:"group"`
	Seq      uint64     `json:"seq"`
	State    State      `json:"state"`
	Reason   Reason     `json:"reason,omitempty"`
	Message  string     `json:"message,omitempty"` // at most MaxMessage bytes, no secrets
	Exit     *int       `json:"exit,omitempty"`    // exit code, 128 + signal when signalled
	Time     time.Time  `json:"time"`              // the agent's clock, for people only
	Started  time.Time  `json:"started,omitzero"`  // when the process started
	PID      int        `json:"pid,omitempty"`     // on the machine
	Health   []Health   `json:"health,omitempty"`  // one for each of the task's Checks
}

// Health is the standing of one check of one task.
type Health struct {
	Known     bool      `json:"known"`    // at least one result counted
	Alive     bool      `json:"alive"`    // the last results say it works
	Failures  int       `json:"failures"` // consecutive, now
	First     time.Time `json:"firstSuccess,omitzero"`
	LastGood  time.Time `json:"lastSuccess,omitzero"`
	LastBad   time.Time `json:"lastFailure,omitzero"`
	LastCause string    `json:"lastFailureCause,omitempty"`
}

// Healthy reports whether a task with these checks may get traffic: every check has passed and none says otherwise.
// A task without checks is healthy when it runs.
func (s *Status) Healthy() bool {
	if s.State != Running {
		return false
	}
	for _, h := range s.Health {
		if !h.Known || !h.Alive {
			return false
		}
	}
	return true
}

// Instance is a placed instance as the kernel knows it: its assignment, where it is, and the latest status of each
// task. It is kept as a Record.
type Instance struct {
	Assignment
	Framework string    `json:"framework"`
	Owner     string    `json:"owner"`
	Version   string    `json:"version"`
	Agent     AgentID   `json:"agent"`
	Hostname  string    `json:"hostname"` // the agent's
	Statuses  []Status  `json:"statuses"` // one for each task of the spec; Staging until reported
	Removed   bool      `json:"removed"`  // it ended, or was forgotten: this is the last that is heard of it
	Away      time.Time `json:"away,omitzero"`
	// Away is since when its agent has been unreachable; zero if it is not. Known is false after a change of leader
	// until its agent has reported again.
	Known bool `json:"known"`
}

// State sums an instance up: the worst terminal state, else the least advanced of its tasks.
func (i *Instance) State() State {
	return sumStates(len(i.Statuses), func(k int) State { return i.Statuses[k].State })
}

func sumStates(tasks int, of func(int) State) State {
	least, ended := Running, State(0)
	for k := range tasks {
		s := of(k)
		if s.Terminal() {
			ended = max(ended, s)
		} else if s == Killing {
			least = Killing
		} else if least != Killing {
			least = min(least, s)
		}
	}
	if ended != 0 {
		return ended
	}
	if tasks == 0 {
		return Staging
	}
	return least
}

// Healthy reports whether every task of the instance is.
func (i *Instance) Healthy() bool {
	for k := range i.Statuses {
		if !i.Statuses[k].Healthy() {
			return false
		}
	}
	return len(i.Statuses) > 0
}
