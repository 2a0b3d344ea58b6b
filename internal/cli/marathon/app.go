package marathon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/output"
)

// API is the path of Marathon's API at the gateway.
const API = "/service/marathon/v2"

// App is the part of Marathon's AppInfo that the verbs read.
type App struct {
	ID        string  `json:"id"`
	Instances int     `json:"instances"`
	CPUs      float64 `json:"cpus"`
	Mem       float64 `json:"mem"`
	Cmd       string  `json:"cmd"`
	Version   string  `json:"version"`
	Container *struct {
		Docker *struct {
			Image string `json:"image"`
		} `json:"docker"`
	} `json:"container"`
	HealthChecks   []json.RawMessage `json:"healthChecks"`
	TasksStaged    int               `json:"tasksStaged"`
	TasksRunning   int               `json:"tasksRunning"`
	TasksHealthy   int               `json:"tasksHealthy"`
	TasksUnhealthy int               `json:"tasksUnhealthy"`
	Deployments    []struct {
		ID string `json:"id"`
	} `json:"deployments"`
	Tasks       []Task `json:"tasks"`
	LastFailure *struct {
		TaskID, Message, State string
		Timestamp              time.Time
	} `json:"lastTaskFailure"`
}

// Health counts its healthy instances, "" if nothing checks that.
func (a *App) Health() string {
	if len(a.HealthChecks) == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", a.TasksHealthy, a.Instances)
}

// Settled reports whether all it should be is running and healthy, and nothing is being deployed.
func (a *App) Settled() bool {
	healthy := len(a.HealthChecks) == 0 || a.TasksHealthy == a.Instances
	return a.TasksRunning == a.Instances && len(a.Deployments) == 0 && healthy
}

// Runs names its program: an image, or the beginning of a command.
func (a *App) Runs() string {
	if a.Container != nil && a.Container.Docker != nil {
		return a.Container.Docker.Image
	}
	return output.Short(a.Cmd, 40)
}

// AppPath is the API's path of an app; the id's slashes stay.
func AppPath(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return API + "/apps/" + strings.Join(parts, "/")
}

// Apps lists the apps; b is the answer as it came.
func Apps(ctx context.Context, cl *client.Client) (apps []App, b []byte, err error) {
	var answer struct {
		Apps []App `json:"apps"`
	}
	b, err = cl.Get(ctx, API+"/apps", &answer)
	return answer.Apps, b, err
}

// GetApp asks for one app; b is the answer as it came.
func GetApp(ctx context.Context, cl *client.Client, id string) (app App, b []byte, err error) {
	var answer struct {
		App App `json:"app"`
	}
	b, err = cl.Get(ctx, AppPath(id), &answer)
	return answer.App, b, err
}

// CompleteApps completes one app's id.
func CompleteApps(e *command.Env) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return e.Complete(c, func(ctx context.Context, cl *client.Client) (ids []string) {
			apps, _, err := Apps(ctx, cl)
			if err != nil {
				return nil
			}
			for _, a := range apps {
				ids = append(ids, a.ID)
			}
			return ids
		})
	}
}
