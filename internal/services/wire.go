package services

import (
	"cmp"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

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

// HealthResult is where one check of a task stands.
type HealthResult struct {
	Alive               bool   `json:"alive"`
	ConsecutiveFailures int    `json:"consecutiveFailures"`
	FirstSuccess        string `json:"firstSuccess,omitempty"`
	InstanceID          string `json:"instanceId"`
	LastFailure         string `json:"lastFailure,omitempty"`
	LastFailureCause    string `json:"lastFailureCause,omitempty"`
	LastSuccess         string `json:"lastSuccess,omitempty"`
}

// TaskFailure is how the last instance that ended by itself ended.
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

// Counts is how many tasks are in which state.
type Counts struct {
	Staged    int `json:"staged"`
	Running   int `json:"running"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
}

// LifeTime is how long tasks have been running.
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

// QueueDelay is how long the next launch waits. Overdue: it waits for room and not for time.
type QueueDelay struct {
	TimeLeftSeconds int  `json:"timeLeftSeconds"`
	Overdue         bool `json:"overdue"`
}

// QueueSummary says how the search for room went: how many attempts, and for each reason how many machines turned them down.
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

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func taskOf(i *Instance) string { return string(i.ID()) + taskSuffix }

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

func addresses(i *kernel.Instance) []IPAddress {
	if !i.Address.IsValid() {
		return []IPAddress{}
	}
	return []IPAddress{{i.Address.String(), "IPv4"}}
}

func failureOf(i *Instance, now time.Time) *TaskFailure {
	f := &TaskFailure{AppID: i.Owner, Host: i.Hostname, Message: message(new(i.Instance())), SlaveID: string(i.Agent), State: i.State().String(),
		TaskID: taskOf(i), Timestamp: timestamp(now), Version: i.Version}
	return f
}

// task is an instance's task as the API shows it.
func (s *State) task(i *Instance, machines map[kernel.AgentID]kernel.AgentView) Task {
	k := i.Instance()
	t := Task{AppID: i.Owner, Host: i.Hostname, ID: taskOf(i), SlaveID: string(i.Agent), State: taskState(i),
		Ports: orEmpty(k.HostPorts), IPAddresses: addresses(&k), ServicePorts: []int{}, HealthCheckResults: []HealthResult{},
		LocalVolumes: []struct{}{}, StagedAt: timestamp(i.Placed()), Version: i.Version}
	m := machines[i.Agent]
	if len(t.IPAddresses) == 0 && m.Address.IsValid() {
		t.IPAddresses = []IPAddress{{m.Address.String(), "IPv4"}}
	}
	t.Region, t.Zone = m.Region, m.Zone
	if a := cmp.Or(s.definition(i.Owner, i.Version), s.Apps[i.Owner]); a != nil {
		t.Role, t.ServicePorts = a.Role, a.servicePorts()
	}
	if len(k.Statuses) == 0 {
		return t
	}
	t.StartedAt = timestamp(k.Statuses[0].Started)
	for _, h := range k.Statuses[0].Health {
		if h.Known {
			t.HealthCheckResults = append(t.HealthCheckResults, HealthResult{Alive: h.Alive, ConsecutiveFailures: h.Failures,
				FirstSuccess: timestamp(h.First), InstanceID: string(i.ID()), LastFailure: timestamp(h.LastBad),
				LastFailureCause: h.LastCause, LastSuccess: timestamp(h.LastGood)})
		}
	}
	return t
}

func countTasks(list []*Instance) (c Counts) {
	for _, i := range list {
		switch i.State() {
		case kernel.Staging, kernel.Starting:
			c.Staged++
		case kernel.Running:
			if i.Away.IsZero() {
				c.Running++
			}
		}
		if a := alive(i); a != nil && *a {
			c.Healthy++
		} else if a != nil {
			c.Unhealthy++
		}
	}
	return c
}

func statsOf(list []*Instance, now time.Time) *Stats {
	if len(list) == 0 {
		return nil
	}
	st := &Stats{}
	st.Stats.Counts = countTasks(list)
	ages := []float64{}
	sum := 0.0
	for _, i := range list {
		if at := i.Started(); !at.IsZero() {
			age := max(0, now.Sub(at).Seconds())
			ages, sum = append(ages, age), sum+age
		}
	}
	if len(ages) > 0 {
		slices.Sort(ages)
		st.Stats.LifeTime = &LifeTime{AverageSeconds: sum / float64(len(ages)), MedianSeconds: ages[len(ages)/2]}
	}
	return st
}

// placedInstances are those that Marathon would call tasks.
func (s *State) placedInstances(app string) []*Instance {
	return slices.DeleteFunc(s.Instances(app), func(i *Instance) bool { return i.Waiting })
}

func (s *State) taskStats(a *App, list []*Instance, now time.Time) *TaskStats {
	var after, latest, outdated []*Instance
	for _, i := range list {
		if i.Version == a.Config() {
			latest = append(latest, i)
		} else {
			outdated = append(outdated, i)
		}
		if a.VersionInfo != nil && timestamp(s.started(i)) > a.VersionInfo.LastScalingAt {
			after = append(after, i)
		}
	}
	return &TaskStats{statsOf(after, now), statsOf(latest, now), statsOf(outdated, now), statsOf(list, now)}
}

// Info is an app with what embed names, beside its counts and deployments.
func (s *State) Info(a *App, embed Embed, machines map[kernel.AgentID]kernel.AgentView, now time.Time) AppInfo {
	list := s.placedInstances(a.ID)
	c := countTasks(list)
	out := AppInfo{App: a, TasksStaged: &c.Staged, TasksRunning: &c.Running, TasksHealthy: &c.Healthy, TasksUnhealthy: &c.Unhealthy,
		Deployments: []DeploymentRef{}}
	for _, d := range s.Deployments {
		if d.change(a.ID) != nil {
			out.Deployments = append(out.Deployments, DeploymentRef{d.ID})
		}
	}
	if embed.Tasks {
		out.Tasks = []Task{}
		for _, i := range list {
			out.Tasks = append(out.Tasks, s.task(i, machines))
		}
	}
	if f := s.fleets[a.ID]; f != nil && embed.LastTaskFailure {
		out.LastTaskFailure = f.lastFailure
	}
	if embed.TaskStats {
		out.TaskStats = s.taskStats(a, list, now)
	}
	if embed.Readiness {
		out.Readiness = []ReadinessCheck{}
	}
	return out
}

// Embed is what an answer holds beside the apps themselves.
type Embed struct{ Tasks, LastTaskFailure, TaskStats, Readiness bool }
