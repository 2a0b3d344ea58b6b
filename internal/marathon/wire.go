package marathon

import (
	"bytes"
	"encoding/json"
)

// Encode writes JSON without escaping < and >, which Marathon's texts hold.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// AppInfo is an app as the API answers with it: the app and what is embedded.
type AppInfo struct {
	*App
	TasksStaged     *int             `json:"tasksStaged,omitempty"`
	TasksRunning    *int             `json:"tasksRunning,omitempty"`
	TasksHealthy    *int             `json:"tasksHealthy,omitempty"`
	TasksUnhealthy  *int             `json:"tasksUnhealthy,omitempty"`
	Deployments     []DeploymentRef  `json:"deployments,omitzero"`
	Tasks           []Task           `json:"tasks,omitzero"`
	LastTaskFailure *TaskFailure     `json:"lastTaskFailure,omitempty"`
	TaskStats       *TaskStats       `json:"taskStats,omitempty"`
	Readiness       []ReadinessCheck `json:"readinessCheckResults,omitzero"`
}

// ReadinessCheck has no results in this version.
type ReadinessCheck struct{}

// DeploymentRef names a deployment.
type DeploymentRef struct {
	ID string `json:"id"`
}

// DeploymentResult is the answer to a request that started a deployment.
type DeploymentResult struct {
	Version      string `json:"version"`
	DeploymentID string `json:"deploymentId"`
}

// Task is Marathon's task: the one container of an instance.
type Task struct {
	AppID              string         `json:"appId"`
	HealthCheckResults []HealthResult `json:"healthCheckResults"`
	Host               string         `json:"host"`
	ID                 string         `json:"id"`
	IPAddresses        []IPAddress    `json:"ipAddresses"`
	LocalVolumes       []struct{}     `json:"localVolumes"`
	Ports              []uint16       `json:"ports"`
	Role               string         `json:"role"`
	ServicePorts       []int          `json:"servicePorts"`
	SlaveID            string         `json:"slaveId"`
	StagedAt           string         `json:"stagedAt,omitempty"`
	StartedAt          string         `json:"startedAt,omitempty"`
	State              string         `json:"state"`
	Version            string         `json:"version,omitempty"`
	Region             string         `json:"region,omitempty"`
	Zone               string         `json:"zone,omitempty"`
}

// IPAddress is one address of a task.
type IPAddress struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"`
}

// HealthResult is the state of one check of a task.
type HealthResult struct {
	Alive               bool   `json:"alive"`
	ConsecutiveFailures int    `json:"consecutiveFailures"`
	FirstSuccess        string `json:"firstSuccess,omitempty"`
	InstanceID          string `json:"instanceId"`
	LastFailure         string `json:"lastFailure,omitempty"`
	LastFailureCause    string `json:"lastFailureCause,omitempty"`
	LastSuccess         string `json:"lastSuccess,omitempty"`
}

// TaskFailure describes the end of the last instance that ended by itself.
type TaskFailure struct {
	AppID     string `json:"appId"`
	Host      string `json:"host"`
	Message   string `json:"message"`
	SlaveID   string `json:"slaveId,omitempty"`
	State     string `json:"state"`
	TaskID    string `json:"taskId"`
	Timestamp string `json:"timestamp"`
	Version   string `json:"version"`
}

// TaskStats sums up an app's tasks, by how new they are.
type TaskStats struct {
	StartedAfterLastScaling *Stats `json:"startedAfterLastScaling,omitempty"`
	WithLatestConfig        *Stats `json:"withLatestConfig,omitempty"`
	WithOutdatedConfig      *Stats `json:"withOutdatedConfig,omitempty"`
	TotalSummary            *Stats `json:"totalSummary,omitempty"`
}

// Stats is the counts and ages of some tasks.
type Stats struct {
	Stats struct {
		Counts   Counts    `json:"counts"`
		LifeTime *LifeTime `json:"lifeTime,omitempty"`
	} `json:"stats"`
}

// Counts are the numbers of tasks by state.
type Counts struct {
	Staged    int `json:"staged"`
	Running   int `json:"running"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
}

// LifeTime describes the ages of running tasks.
type LifeTime struct {
	AverageSeconds float64 `json:"averageSeconds"`
	MedianSeconds  float64 `json:"medianSeconds"`
}

// DeploymentInfo is a running deployment. Reason, which Marathon does not have, tells why it has not come further.
type DeploymentInfo struct {
	ID             string          `json:"id"`
	Version        string          `json:"version"`
	AffectedApps   []string        `json:"affectedApps"`
	AffectedPods   []string        `json:"affectedPods"`
	Steps          []Step          `json:"steps"`
	CurrentActions []CurrentAction `json:"currentActions"`
	CurrentStep    int             `json:"currentStep"`
	TotalSteps     int             `json:"totalSteps"`
	Reason         string          `json:"reason,omitempty"`
}

// CurrentAction is an action of the current step.
type CurrentAction struct {
	Action
	Readiness []ReadinessCheck `json:"readinessCheckResults"`
}

// QueueItem is an app with instances left to launch.
type QueueItem struct {
	App       *App         `json:"app"`
	Count     int          `json:"count"`
	Delay     QueueDelay   `json:"delay"`
	Since     string       `json:"since"`
	Role      string       `json:"role"`
	Processed QueueSummary `json:"processedOffersSummary"`
	Last      []struct{}   `json:"lastUnusedOffers,omitzero"`
	Refusal   string       `json:"refusal,omitempty"` // not Marathon's: why the rest waits, in a sentence
	Hold      string       `json:"hold,omitempty"`    // not Marathon's: the machine on which room is kept for one of them
}

// QueueDelay is the wait of the next launch. Overdue: it waits for room and not for time.
type QueueDelay struct {
	TimeLeftSeconds int  `json:"timeLeftSeconds"`
	Overdue         bool `json:"overdue"`
}

// QueueSummary says how the search for room went: how many attempts, and for each reason how many machines turned
// them down.
type QueueSummary struct {
	Processed int           `json:"processedOffersCount"`
	Unused    int           `json:"unusedOffersCount"`
	Offers    []QueueReject `json:"rejectSummaryLastOffers"`
	Attempt   []QueueReject `json:"rejectSummaryLaunchAttempt"`
}

// QueueReject is one reason.
type QueueReject struct {
	Reason    string `json:"reason"`
	Declined  int    `json:"declined"`
	Processed int    `json:"processed"`
}

// GroupInfo is a group with what is in it.
type GroupInfo struct {
	ID           string      `json:"id"`
	Apps         []AppInfo   `json:"apps"`
	Pods         []struct{}  `json:"pods"`
	Groups       []GroupInfo `json:"groups"`
	Dependencies []string    `json:"dependencies"`
	Version      string      `json:"version"`
	EnforceRole  bool        `json:"enforceRole"`
}

// The actions of a deployment's steps.
const (
	StartApplication   = "StartApplication" // the app begins, with no instances
	ScaleApplication   = "ScaleApplication"
	RestartApplication = "RestartApplication" // instances of other versions are replaced
	StopApplication    = "StopApplication"
)

// Step is actions that run side by side.
type Step struct {
	Actions []Action `json:"actions"`
}

// Action is one app's part of a step.
type Action struct {
	Action string `json:"action"`
	App    string `json:"app"`
}
