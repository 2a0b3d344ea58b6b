package marathon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/output"
)

// Task is the part of Marathon's Task that the verbs read.
type Task struct {
	ID          string    `json:"id"`
	AppID       string    `json:"appId"`
	Host        string    `json:"host"`
	State       string    `json:"state"`
	Ports       []int     `json:"ports"`
	StartedAt   time.Time `json:"startedAt"`
	StagedAt    time.Time `json:"stagedAt"`
	Version     string    `json:"version"`
	IPAddresses []struct {
		IPAddress string `json:"ipAddress"`
	} `json:"ipAddresses"`
	HealthResults []struct {
		Alive               bool   `json:"alive"`
		ConsecutiveFailures int    `json:"consecutiveFailures"`
		LastFailureCause    string `json:"lastFailureCause"`
	} `json:"healthCheckResults"`
}

// Health is "yes", or "no" with the cause of the first check that fails, or "" if nothing checks.
func (t *Task) Health() string {
	if len(t.HealthResults) == 0 {
		return ""
	}
	for _, h := range t.HealthResults {
		if !h.Alive {
			return "no " + h.LastFailureCause
		}
	}
	return "yes"
}

// Tasks lists the tasks of all apps.
func Tasks(ctx context.Context, cl *client.Client) ([]Task, error) {
	var answer struct {
		Tasks []Task `json:"tasks"`
	}
	_, err := cl.Get(ctx, API+"/tasks", &answer)
	return answer.Tasks, err
}

// PrintTasks prints the table of tasks.
func PrintTasks(e *command.Env, tasks []Task) {
	rows := [][]string{}
	for _, t := range tasks {
		ip, started := "", t.StartedAt
		if len(t.IPAddresses) > 0 {
			ip = t.IPAddresses[0].IPAddress
		}
		if started.IsZero() {
			started = t.StagedAt
		}
		ports := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(t.Ports)), ","), "[]")
		rows = append(rows, []string{t.ID, strings.TrimPrefix(t.State, "TASK_"), t.Health(), t.Host, ip, ports,
			output.Ago(started)})
	}
	e.Table([]string{"TASK", "STATE", "HEALTHY", "MACHINE", "ADDRESS", "PORTS", "AGE"}, rows)
}
