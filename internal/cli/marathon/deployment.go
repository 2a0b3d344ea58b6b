package marathon

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"

	"github.com/marinaos/marina/internal/cli/client"
)

// Deployment is the part of Marathon's DeploymentStepInfo that the verbs read; Reason is Marina's.
type Deployment struct {
	ID             string   `json:"id"`
	Version        string   `json:"version"`
	AffectedApps   []string `json:"affectedApps"`
	CurrentStep    int      `json:"currentStep"`
	TotalSteps     int      `json:"totalSteps"`
	Reason         string   `json:"reason"`
	CurrentActions []struct {
		Action string `json:"action"`
		App    string `json:"app"`
	} `json:"currentActions"`
}

// Doing describes its present step: "Scale /prod/web".
func (d *Deployment) Doing() string {
	var parts []string
	for _, a := range d.CurrentActions {
		parts = append(parts, strings.TrimSuffix(a.Action, "Application")+" "+a.App)
	}
	return strings.Join(parts, ", ")
}

// Deployments lists those that run; b is the answer as it came.
func Deployments(ctx context.Context, cl *client.Client) (all []Deployment, b []byte, err error) {
	b, err = cl.Get(ctx, API+"/deployments", &all)
	return all, b, err
}

// findDeployment asks for one that may have ended.
func findDeployment(ctx context.Context, cl *client.Client, id string) (d Deployment, running bool, err error) {
	all, _, err := Deployments(ctx, cl)
	if err != nil {
		return Deployment{}, false, err
	}
	for _, d := range all {
		if d.ID == id {
			return d, true, nil
		}
	}
	return Deployment{}, false, nil
}

// deploymentEnds listens to the event stream for the end of a deployment: "" is success, else why not. It listens until
// ctx ends.
func deploymentEnds(ctx context.Context, cl *client.Client, id string) (<-chan string, error) {
	stream, err := cl.Events(ctx, API+"/events?event_type=deployment_success&event_type=deployment_failed")
	if err != nil {
		return nil, err
	}
	out := make(chan string, 1)
	go func() { // ends with ctx, which the caller cancels
		defer stream.Close()
		client.ScanEvents(stream, func(kind string, data []byte) bool {
			var e struct {
				ID     string `json:"id"`
				Reason string `json:"reason"`
			}
			if json.Unmarshal(data, &e) != nil || e.ID != id {
				return true
			}
			if kind == "deployment_failed" {
				out <- cmp.Or(e.Reason, "cancelled")
			} else {
				out <- ""
			}
			return false
		})
	}()
	return out, nil
}
