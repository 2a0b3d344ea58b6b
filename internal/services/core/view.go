package core

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// TaskOf is an instance's task as the API shows it.
func TaskOf(s *State, i *Instance, machines map[kernel.AgentID]kernel.AgentView) marathon.Task {
	k := i.Instance()
	t := marathon.Task{AppID: i.Owner, Host: i.Hostname, ID: taskOf(i), SlaveID: string(i.Agent), State: taskState(i),
		Ports: orEmpty(k.HostPorts), IPAddresses: addresses(&k), ServicePorts: []int{},
		HealthCheckResults: []marathon.HealthResult{},
		LocalVolumes:       []struct{}{}, StagedAt: marathon.Timestamp(i.Placed()), Version: i.Version}
	m := machines[i.Agent]
	if len(t.IPAddresses) == 0 && m.Address.IsValid() {
		t.IPAddresses = []marathon.IPAddress{{IPAddress: m.Address.String(), Protocol: "IPv4"}}
	}
	t.Region, t.Zone = m.Region, m.Zone
	if a := cmp.Or(s.definition(i.Owner, i.Version), s.Apps[i.Owner]); a != nil {
		t.Role, t.ServicePorts = a.Role, a.ServicePorts()
	}
	if len(k.Statuses) == 0 {
		return t
	}
	t.StartedAt = marathon.Timestamp(k.Statuses[0].Started)
	for _, h := range k.Statuses[0].Health {
		if h.Known {
			t.HealthCheckResults = append(t.HealthCheckResults, marathon.HealthResult{Alive: h.Alive,
				ConsecutiveFailures: h.Failures,
				FirstSuccess:        marathon.Timestamp(h.First),
				InstanceID:          string(i.ID()),
				LastFailure:         marathon.Timestamp(h.LastBad),
				LastFailureCause:    h.LastCause, LastSuccess: marathon.Timestamp(h.LastGood)})
		}
	}
	return t
}

func countTasks(list []*Instance) (c marathon.Counts) {
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

func statsOf(list []*Instance, now time.Time) *marathon.Stats {
	if len(list) == 0 {
		return nil
	}
	st := &marathon.Stats{}
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
		st.Stats.LifeTime = &marathon.LifeTime{AverageSeconds: sum / float64(len(ages)), MedianSeconds: ages[len(ages)/2]}
	}
	return st
}

// placedInstances are those that Marathon would call tasks.
func (s *State) placedInstances(app string) []*Instance {
	return slices.DeleteFunc(s.Instances(app), func(i *Instance) bool { return i.Waiting })
}

func (s *State) taskStats(a *marathon.App, list []*Instance, now time.Time) *marathon.TaskStats {
	var after, latest, outdated []*Instance
	for _, i := range list {
		if i.Version == a.Config() {
			latest = append(latest, i)
		} else {
			outdated = append(outdated, i)
		}
		if a.VersionInfo != nil && marathon.Timestamp(s.started(i)) > a.VersionInfo.LastScalingAt {
			after = append(after, i)
		}
	}
	return &marathon.TaskStats{StartedAfterLastScaling: statsOf(after, now), WithLatestConfig: statsOf(latest, now),
		WithOutdatedConfig: statsOf(outdated, now), TotalSummary: statsOf(list, now)}
}

// Info is an app with what embed names, beside its counts and deployments.
func (s *State) Info(
	a *marathon.App, embed Embed, machines map[kernel.AgentID]kernel.AgentView, now time.Time,
) marathon.AppInfo {
	list := s.placedInstances(a.ID)
	c := countTasks(list)
	out := marathon.AppInfo{App: a, TasksStaged: &c.Staged, TasksRunning: &c.Running, TasksHealthy: &c.Healthy,
		TasksUnhealthy: &c.Unhealthy,
		Deployments:    []marathon.DeploymentRef{}}
	for _, d := range s.Deployments {
		if d.Change(a.ID) != nil {
			out.Deployments = append(out.Deployments, marathon.DeploymentRef{ID: d.ID})
		}
	}
	if embed.Tasks {
		out.Tasks = []marathon.Task{}
		for _, i := range list {
			out.Tasks = append(out.Tasks, TaskOf(s, i, machines))
		}
	}
	if f := s.fleets[a.ID]; f != nil && embed.LastTaskFailure {
		out.LastTaskFailure = f.lastFailure
	}
	if embed.TaskStats {
		out.TaskStats = s.taskStats(a, list, now)
	}
	if embed.Readiness {
		out.Readiness = []marathon.ReadinessCheck{}
	}
	return out
}

// Embed selects the parts of an answer beside the apps themselves.
type Embed struct{ Tasks, LastTaskFailure, TaskStats, Readiness bool }

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
