package marathon

import "time"

// Event is one thing that happened, as the event stream tells it. Data is its JSON.
type Event struct {
	Type string
	Data any
}

// Head has the fields that every event begins with.
type Head struct {
	EventType string `json:"eventType"`
	Timestamp string `json:"timestamp"`
}

// NewHead is the head of an event of a kind.
func NewHead(kind string, now time.Time) Head { return Head{kind, Timestamp(now)} }

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

// InstanceChanged is an instance_changed_event, an instance_health_changed_event or an
// unknown_instance_terminated_event.
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

// InstancesWaiting is an instances_waiting_event, which Marathon does not have: no room was found for instances that
// were launched.
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
