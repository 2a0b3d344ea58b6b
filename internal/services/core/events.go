package core

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// journal keeps what happened since the last decision.
type journal struct{ events []marathon.Event }

func (j *journal) emit(events ...marathon.Event) { j.events = append(j.events, events...) }

func planOf(d *Deployment) marathon.PlanInfo {
	return marathon.PlanInfo{ID: d.ID, Version: d.Version, Steps: orEmpty(d.Steps)}
}

// StepEvent tells where a deployment is.
func StepEvent(kind string, d *Deployment, now time.Time) marathon.Event {
	e := marathon.DeploymentEvent{Head: marathon.NewHead(kind, now), Plan: planOf(d),
		CurrentStep: &marathon.Step{Actions: []marathon.Action{}}}
	if d.Step < len(d.Steps) {
		e.CurrentStep = &d.Steps[d.Step]
	}
	return marathon.Event{Type: kind, Data: e}
}

// DeploymentEnd tells that a deployment ended, and why if it did not succeed.
func DeploymentEnd(kind string, d *Deployment, reason string, now time.Time) marathon.Event {
	return marathon.Event{Type: kind, Data: marathon.DeploymentEvent{Head: marathon.NewHead(kind, now), ID: d.ID,
		Plan: planOf(d), Reason: reason}}
}

// GroupChanged tells that apps changed.
func GroupChanged(version string, now time.Time) marathon.Event {
	return marathon.Event{Type: "group_change_success",
		Data: marathon.GroupChange{Head: marathon.NewHead("group_change_success", now), GroupID: "/", Version: version}}
}

func appTerminated(id string, now time.Time) marathon.Event {
	return marathon.Event{Type: "app_terminated_event",
		Data: marathon.AppTerminated{Head: marathon.NewHead("app_terminated_event", now), AppID: id}}
}

// Waits tells of instances that were launched and found no room.
func (j *journal) Waits(l Launch, r kernel.LaunchResult, now time.Time) {
	const kind = "instances_waiting_event"
	e := marathon.InstancesWaiting{Head: marathon.NewHead(kind, now), AppID: l.App.ID, Version: l.App.Config(),
		Waiting: r.Waiting}
	if r.Refusal != nil {
		e.Reason = r.Refusal.String()
	}
	j.emit(marathon.Event{Type: kind, Data: e})
}

func unhealthyKill(i *Instance, reason string, now time.Time) marathon.Event {
	const kind = "unhealthy_instance_kill_event"
	return marathon.Event{Type: kind, Data: marathon.UnhealthyKill{Head: marathon.NewHead(kind, now), AppID: i.Owner,
		TaskID: taskOf(i), InstanceID: string(i.ID()), Version: i.Version, Reason: reason, Host: i.Hostname,
		SlaveID: string(i.Agent)}}
}

// changed tells the difference between two views of an instance.
func (j *journal) changed(old, i *Instance, now time.Time) {
	was, is := "", condition(i)
	if !old.Waiting {
		was = condition(old)
	}
	if was != is {
		k := i.Instance()
		j.emit(marathon.Event{Type: "status_update_event", Data: marathon.StatusUpdate{
			Head: marathon.NewHead("status_update_event", now), SlaveID: string(i.Agent), TaskID: taskOf(i),
			TaskStatus: taskState(i),
			Message:    message(&k), AppID: i.Owner, Host: i.Hostname, IPAddresses: addresses(&k), Ports: orEmpty(k.HostPorts),
			Version: i.Version}},
			marathon.Event{Type: "instance_changed_event", Data: marathon.InstanceChanged{
				Head: marathon.NewHead("instance_changed_event", now), InstanceID: string(i.ID()), Condition: is,
				RunSpecID: i.Owner,
				AgentID:   new(string(i.Agent)), Host: &i.Hostname, RunSpecVersion: i.Version}})
	}
	if before, after := alive(old), alive(i); after != nil && (before == nil || *before != *after) {
		j.emit(marathon.Event{Type: "instance_health_changed_event", Data: marathon.InstanceChanged{
			Head: marathon.NewHead("instance_health_changed_event", now), InstanceID: string(i.ID()), RunSpecID: i.Owner,
			RunSpecVersion: i.Version, Healthy: after}},
			marathon.Event{Type: "health_status_changed_event", Data: marathon.HealthChanged{
				Head: marathon.NewHead("health_status_changed_event", now), AppID: i.Owner, InstanceID: string(i.ID()),
				TaskID: taskOf(i), Version: i.Version, Alive: *after}})
	}
}
