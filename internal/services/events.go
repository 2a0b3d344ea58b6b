package services

import (
	"sync"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// Event is one thing that happened, as the event stream tells it. Data is its JSON.
type Event struct {
	Type string
	Data any
}

// Head is what every event begins with.
type Head struct {
	EventType string `json:"eventType"`
	Timestamp string `json:"timestamp"`
}

func head(kind string, now time.Time) Head { return Head{kind, timestamp(now)} }

// StatusUpdate is a status_update_event.
type StatusUpdate struct {
	Head
	SlaveID     string      `json:"slaveId"`
	TaskID      string      `json:"taskId"`
	TaskStatus  string      `json:"taskStatus"`
	Message     string      `json:"message"`
	AppID       string      `json:"appId"`
	Host        string      `json:"host"`
	IPAddresses []IPAddress `json:"ipAddresses"`
	Ports       []uint16    `json:"ports"`
	Version     string      `json:"version"`
}

// InstanceChanged is an instance_changed_event, an instance_health_changed_event or an unknown_instance_terminated_event.
type InstanceChanged struct {
	Head
	InstanceID     string  `json:"instanceId"`
	Condition      string  `json:"condition,omitempty"`
	RunSpecID      string  `json:"runSpecId"`
	AgentID        *string `json:"agentId,omitempty"`
	Host           *string `json:"host,omitempty"`
	RunSpecVersion string  `json:"runSpecVersion"`
	Healthy        *bool   `json:"healthy,omitempty"`
}

// HealthChanged is a health_status_changed_event. go-marathon reads taskId, Marathon writes instanceId.
type HealthChanged struct {
	Head
	AppID      string `json:"appId"`
	InstanceID string `json:"instanceId"`
	TaskID     string `json:"taskId"`
	Version    string `json:"version"`
	Alive      bool   `json:"alive"`
}

// UnhealthyKill is an unhealthy_instance_kill_event.
type UnhealthyKill struct {
	Head
	AppID      string `json:"appId"`
	TaskID     string `json:"taskId"`
	InstanceID string `json:"instanceId"`
	Version    string `json:"version"`
	Reason     string `json:"reason"`
	Host       string `json:"host"`
	SlaveID    string `json:"slaveId"`
}

// InstancesWaiting is an instances_waiting_event, which Marathon does not have: no room was found for instances that were launched.
type InstancesWaiting struct {
	Head
	AppID   string `json:"appId"`
	Version string `json:"version"`
	Waiting int    `json:"waiting"`
	Reason  string `json:"reason"` // one sentence with numbers
}

// AppTerminated is an app_terminated_event.
type AppTerminated struct {
	Head
	AppID string `json:"appId"`
}

// APIPost is an api_post_event.
type APIPost struct {
	Head
	ClientIP      string `json:"clientIp"`
	URI           string `json:"uri"`
	AppDefinition *App   `json:"appDefinition"`
}

// GroupChange is a group_change_success.
type GroupChange struct {
	Head
	GroupID string `json:"groupId"`
	Version string `json:"version"`
}

// PlanInfo is a deployment inside an event.
type PlanInfo struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Steps   []Step `json:"steps"`
}

// DeploymentEvent is one of the deployment events.
type DeploymentEvent struct {
	Head
	ID          string   `json:"id,omitempty"`
	Plan        PlanInfo `json:"plan"`
	CurrentStep *Step    `json:"currentStep,omitempty"`
	Reason      string   `json:"reason,omitempty"`
}

// StreamAttached is an event_stream_attached or event_stream_detached.
type StreamAttached struct {
	Head
	RemoteAddress string `json:"remoteAddress"`
}

func (s *State) emit(events ...Event) { s.events = append(s.events, events...) }

func planOf(d *Deployment) PlanInfo { return PlanInfo{d.ID, d.Version, orEmpty(d.Steps)} }

func stepEvent(kind string, d *Deployment, now time.Time) Event {
	e := DeploymentEvent{Head: head(kind, now), Plan: planOf(d), CurrentStep: &Step{Actions: []Action{}}}
	if d.Step < len(d.Steps) {
		e.CurrentStep = &d.Steps[d.Step]
	}
	return Event{kind, e}
}

func deploymentEnd(kind string, d *Deployment, reason string, now time.Time) Event {
	return Event{kind, DeploymentEvent{Head: head(kind, now), ID: d.ID, Plan: planOf(d), Reason: reason}}
}

func groupChange(version string, now time.Time) Event {
	return Event{"group_change_success", GroupChange{head("group_change_success", now), "/", version}}
}

func appTerminated(id string, now time.Time) Event {
	return Event{"app_terminated_event", AppTerminated{head("app_terminated_event", now), id}}
}

func instancesWaiting(l Launch, r kernel.LaunchResult, now time.Time) Event {
	const kind = "instances_waiting_event"
	e := InstancesWaiting{Head: head(kind, now), AppID: l.App.ID, Version: l.App.Config(), Waiting: r.Waiting}
	if r.Refusal != nil {
		e.Reason = r.Refusal.String()
	}
	return Event{kind, e}
}

func unhealthyKill(i *Instance, reason string, now time.Time) Event {
	const kind = "unhealthy_instance_kill_event"
	return Event{kind, UnhealthyKill{head(kind, now), i.Owner, taskOf(i), string(i.ID()), i.Version, reason, i.Hostname, string(i.Agent)}}
}

// changed tells the difference between two views of an instance.
func (s *State) changed(old, i *Instance, now time.Time) {
	was, is := "", condition(i)
	if !old.Waiting {
		was = condition(old)
	}
	if was != is {
		k := i.Instance()
		s.emit(Event{"status_update_event", StatusUpdate{
			Head: head("status_update_event", now), SlaveID: string(i.Agent), TaskID: taskOf(i), TaskStatus: taskState(i),
			Message: message(&k), AppID: i.Owner, Host: i.Hostname, IPAddresses: addresses(&k), Ports: orEmpty(k.HostPorts), Version: i.Version}},
			Event{"instance_changed_event", InstanceChanged{
				Head: head("instance_changed_event", now), InstanceID: string(i.ID()), Condition: is, RunSpecID: i.Owner,
				AgentID: new(string(i.Agent)), Host: &i.Hostname, RunSpecVersion: i.Version}})
	}
	if before, after := alive(old), alive(i); after != nil && (before == nil || *before != *after) {
		s.emit(Event{"instance_health_changed_event", InstanceChanged{
			Head: head("instance_health_changed_event", now), InstanceID: string(i.ID()), RunSpecID: i.Owner, RunSpecVersion: i.Version, Healthy: after}},
			Event{"health_status_changed_event", HealthChanged{
				head("health_status_changed_event", now), i.Owner, string(i.ID()), taskOf(i), i.Version, *after}})
	}
}

// alive is what an instance's checks say together; nil while they say nothing.
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

// StreamBuffer is how many events a reader of the stream may be behind; one that is further is cut off.
const StreamBuffer = 1024

// hub hands events to the readers of the stream.
type hub struct {
	mu      sync.Mutex           // a leaf: nothing is called under it
	readers map[*reader]struct{} // guarded by mu
}

// reader is one open stream. Its channel is closed when it is cut off.
type reader struct {
	types map[string]bool // nil: all
	c     chan encoded
}

// encoded is an event, encoded.
type encoded struct {
	kind string
	data []byte
}

func (h *hub) join(types []string) *reader {
	r := &reader{c: make(chan encoded, StreamBuffer)}
	if len(types) > 0 {
		r.types = map[string]bool{}
		for _, t := range types {
			r.types[t] = true
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers[r] = struct{}{}
	return r
}

func (h *hub) leave(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

// publish never blocks.
func (h *hub) publish(events []Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.readers) == 0 {
		return
	}
	for _, e := range events {
		m := encoded{e.Type, must(plainJSON(e.Data))}
		for r := range h.readers {
			if r.types != nil && !r.types[e.Type] {
				continue
			}
			select {
			case r.c <- m:
			default:
				close(r.c)
				delete(h.readers, r)
			}
		}
	}
}
