package core

import (
	"fmt"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// Instance is one instance of an app: what the kernel last said and what was asked of it since.
type Instance struct {
	*kernel.Record        // of a waiting instance only ID, Framework, Owner and Version say something
	Waiting        bool   // in the kernel's queue
	Stopping       bool   // it was asked to stop
	Inactive       bool   // its machine has not answered for long: it counts no more
	forgotten      bool   // the kernel was asked to forget it
	since          moment // it was launched or first seen
	forgetAt       moment // not to be forgotten before
}

// moment is a time, small, since there may be a million instances: so long after its clock's base, which keeps its
// monotonic reading. Zero is none.
type moment time.Duration

// clock turns times into moments and back.
type clock struct{ base time.Time }

func (c *clock) moment(t time.Time) moment {
	if c.base.IsZero() {
		c.base = t.Add(-1)
	}
	return moment(t.Sub(c.base))
}

func (c *clock) time(m moment) time.Time { return c.base.Add(time.Duration(m)) }

// started returns the time at which the instance began, as near as it is known.
func (c *clock) started(i *Instance) time.Time {
	if at := i.Started(); !at.IsZero() {
		return at
	}
	if at := i.Placed(); !at.IsZero() {
		return at
	}
	return c.time(i.since)
}

// waiting returns an instance of which the kernel has said nothing yet.
func (c *clock) waiting(of *kernel.Origin, id kernel.InstanceID, now time.Time) *Instance {
	return &Instance{Waiting: true, since: c.moment(now),
		Record: kernel.NewRecord(of, &nowhere, &kernel.Assignment{ID: id}, nil, false)}
}

var nowhere kernel.Host

// healthy reports whether an instance does its work: it runs on a machine that answers, and each of its checks has
// passed.
func (i *Instance) healthy(a *marathon.App) bool {
	if i.Waiting || !i.Away.IsZero() || !i.Known() || !i.Healthy() {
		return false
	}
	checks, _ := i.Checks(0)
	return a == nil || checks >= min(len(a.HealthChecks), kernel.ChecksCounted)
}

// failing tells which check says that the instance should be replaced; "" is none.
func (i *Instance) failing(a *marathon.App) string {
	if a == nil || i.Waiting || i.Stopping || !i.Away.IsZero() || !i.Known() || i.Len() == 0 {
		return ""
	}
	if state, _ := i.Task(0); state != kernel.Running {
		return ""
	}
	if _, failing := i.Checks(0); !failing {
		return ""
	}
	for k, h := range i.Statuses()[0].Health {
		if k >= len(a.HealthChecks) || !h.Known || h.Alive {
			continue
		}
		c := &a.HealthChecks[k]
		if h.Failures >= max(1, c.MaxConsecutiveFailures) && (c.MaxConsecutiveFailures > 0 || c.MesosCheck()) {
			return fmt.Sprintf("%s health check failed %d times: %s", c.Protocol, h.Failures, h.LastCause)
		}
	}
	return ""
}

// alive sums up an instance's checks; nil while they say nothing.
func alive(i *Instance) *bool {
	if i.Len() == 0 {
		return nil
	}
	state, healthy := i.Task(0)
	checks, failing := i.Checks(0)
	switch {
	case checks == 0 || state != kernel.Running:
		return nil
	case failing:
		return new(false)
	case healthy:
		return new(true)
	}
	return nil
}

func taskOf(i *Instance) string { return string(i.ID()) + marathon.TaskSuffix }

// condition is Marathon's word for an instance's state.
func condition(i *Instance) string {
	if !i.Away.IsZero() && !i.Removed() {
		if i.Inactive {
			return "UnreachableInactive"
		}
		return "Unreachable"
	}
	return map[kernel.State]string{kernel.Staging: "Staging", kernel.Starting: "Starting", kernel.Running: "Running",
		kernel.Killing: "Killing", kernel.Finished: "Finished", kernel.Failed: "Failed", kernel.Killed: "Killed",
		kernel.Error: "Error", kernel.Lost: "Dropped", kernel.Gone: "Gone"}[i.State()]
}

func taskState(i *Instance) string {
	if !i.Away.IsZero() && !i.Removed() {
		return "TASK_UNREACHABLE"
	}
	return i.State().String()
}

func message(i *kernel.Instance) string {
	if len(i.Statuses) == 0 {
		return ""
	}
	return i.Statuses[0].Message
}

func addresses(i *kernel.Instance) []marathon.IPAddress {
	if !i.Address.IsValid() {
		return []marathon.IPAddress{}
	}
	return []marathon.IPAddress{{IPAddress: i.Address.String(), Protocol: "IPv4"}}
}

func failureOf(i *Instance, now time.Time) *marathon.TaskFailure {
	f := &marathon.TaskFailure{AppID: i.Owner, Host: i.Hostname, Message: message(new(i.Instance())),
		SlaveID: string(i.Agent), State: i.State().String(),
		TaskID: taskOf(i), Timestamp: marathon.Timestamp(now), Version: i.Version}
	return f
}
