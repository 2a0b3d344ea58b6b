package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// appView is what the verbs read of Marathon's AppInfo.
type appView struct {
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
	Tasks       []taskView `json:"tasks"`
	LastFailure *struct {
		TaskID, Message, State string
		Timestamp              time.Time
	} `json:"lastTaskFailure"`
}

func (a *appView) health() string {
	if len(a.HealthChecks) == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", a.TasksHealthy, a.Instances)
}

func (a *appView) runs() string {
	if a.Container != nil && a.Container.Docker != nil {
		return a.Container.Docker.Image
	}
	return short(a.Cmd, 40)
}

// short cuts a text for a table.
func short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

const marathon = "/service/marathon/v2"

func (v *invocation) appCommand() *cobra.Command {
	return group("app", "Services: what should run, and how many of it", v.appList(), v.appShow(), v.appAdd(), v.appUpdate(),
		v.appScale(), v.appRestart(), v.appRemove(), v.appWait())
}

// appPath is the API's path of an app; the id's slashes stay.
func appPath(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return marathon + "/apps/" + strings.Join(parts, "/")
}

func (v *invocation) appList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the services", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		var answer struct {
			Apps []appView `json:"apps"`
		}
		b, err := cl.get(c.Context(), marathon+"/apps", &answer)
		if err != nil {
			return err
		}
		if v.json {
			return v.raw(b)
		}
		if len(answer.Apps) == 0 {
			fmt.Fprintln(v.out, "No services yet. Add one: marina app add examples/hello/app.json")
			return nil
		}
		rows := [][]string{}
		for _, a := range answer.Apps {
			state := ""
			if len(a.Deployments) > 0 {
				state = "deploying"
			}
			rows = append(rows, []string{a.ID, fmt.Sprintf("%d/%d", a.TasksRunning, a.Instances), a.health(),
				num(a.CPUs), num(a.Mem), state, a.runs()})
		}
		v.table([]string{"ID", "RUNNING", "HEALTHY", "CPUS", "MEM", "STATE", "RUNS"}, rows)
		return nil
	}}
}

func num(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func (v *invocation) appShow() *cobra.Command {
	var address, outside bool
	show := &cobra.Command{Use: "show ID", Short: "Show one service, its tasks and where it is reached", Args: exactly(1),
		ValidArgsFunction: v.completeApps, RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			var answer struct {
				App appView `json:"app"`
			}
			b, err := cl.get(c.Context(), appPath(args[0]), &answer)
			if err != nil {
				return err
			}
			if v.json {
				return v.raw(b)
			}
			a := answer.App
			if address || outside {
				return v.door(c.Context(), cl, a.ID, outside)
			}
			v.fields("id", a.ID, "runs", a.runs(), "instances", strconv.Itoa(a.Instances),
				"running", strconv.Itoa(a.TasksRunning), "healthy", a.health(), "cpus", num(a.CPUs), "mem", num(a.Mem)+" MiB",
				"version", a.Version)
			for _, d := range a.Deployments {
				v.fields("deployment", d.ID)
			}
			if f := a.LastFailure; f != nil {
				v.fields("last failure", fmt.Sprintf("%s %s ago: %s %s", f.TaskID, ago(f.Timestamp), f.State, f.Message))
			}
			v.waits(c.Context(), cl, a.ID)
			v.doors(c.Context(), cl, a.ID)
			if len(a.Tasks) > 0 {
				fmt.Fprintln(v.out)
				v.taskTable(a.Tasks)
			}
			return nil
		}}
	show.Flags().BoolVar(&address, "address", false, "print only its first virtual address, for scripts")
	show.Flags().BoolVar(&outside, "outside", false, "print only the URL that other computers reach it by, for scripts")
	return show
}

// waits says how many instances of an app have no room, and why. Nothing when that cannot be had: it is an addition.
func (v *invocation) waits(ctx context.Context, cl *client, id string) {
	var answer struct {
		Queue []struct {
			App struct {
				ID string `json:"id"`
			} `json:"app"`
			Count   int    `json:"count"`
			Refusal string `json:"refusal"`
			Hold    string `json:"hold"`
		} `json:"queue"`
	}
	if _, err := cl.get(ctx, marathon+"/queue", &answer); err != nil {
		return
	}
	for _, q := range answer.Queue {
		if q.App.ID != id || q.Refusal == "" {
			continue
		}
		text := fmt.Sprintf("%d instances: %s", q.Count, q.Refusal)
		if q.Hold != "" {
			text += "; room is kept for one on " + q.Hold
		}
		v.fields("waiting", text)
	}
}

// door is one way in to an app: GET /net/v1/vips, DC/OS's shape and what Marina adds to it.
type door struct {
	VIP      string `json:"vip"`      // "hello.marathon.l4lb.thisdcos.directory:80"
	Protocol string `json:"protocol"` //
	Address  string `json:"address"`  // "198.18.3.7:80"
	Owner    string `json:"owner"`    // "/hello"
	Publish  []struct {
		URL string `json:"url"` // "http://10.0.0.5:10000"
	} `json:"published"`
	Backend []struct {
		IP   string `json:"ip"`
		Port int    `json:"port"`
	} `json:"backend"`
}

// doors prints how an app is reached; a datacenter that cannot tell is no error.
func (v *invocation) doors(ctx context.Context, cl *client, id string) {
	var all []door
	if _, err := cl.get(ctx, "/net/v1/vips", &all); err != nil {
		return
	}
	for _, d := range all {
		if d.Owner != id {
			continue
		}
		v.fields("name", d.VIP, "address", d.Address+" ("+d.Protocol+")")
		for _, p := range d.Publish {
			v.fields("from outside", p.URL)
		}
	}
}

// door prints one way in, for scripts.
func (v *invocation) door(ctx context.Context, cl *client, id string, outside bool) error {
	var all []door
	if _, err := cl.get(ctx, "/net/v1/vips", &all); err != nil {
		return err
	}
	for _, d := range all {
		switch {
		case d.Owner != id:
		case outside && len(d.Publish) > 0:
			fmt.Fprintln(v.out, d.Publish[0].URL)
			return nil
		case !outside && d.Address != "":
			fmt.Fprintln(v.out, d.Address)
			return nil
		}
	}
	if outside {
		return &Error{Code: ExitNotFound, Message: id + " is not published", Next: `the label "HAPROXY_GROUP": "external" in its definition`}
	}
	return &Error{Code: ExitNotFound, Message: id + " has no virtual address", Next: `a label "VIP_0": "/name:80" on one of its ports`}
}

// appWait follows an app until all it should be is running and healthy and nothing is being deployed.
func (v *invocation) appWait() *cobra.Command {
	var timeout time.Duration
	wait := &cobra.Command{Use: "wait ID", Short: "Wait until a service is as it should be", Args: exactly(1), ValidArgsFunction: v.completeApps,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return v.waitForApp(ctx, cl, args[0])
		}}
	wait.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this long")
	return wait
}

// settled is for how long a service has to be as it should be before wait believes it: what just died is noticed by then.
const settled = 600 * time.Millisecond

func (v *invocation) waitForApp(ctx context.Context, cl *client, id string) error {
	p := v.progress()
	defer p.done()
	var since time.Time // it is as it should be
	for {
		var answer struct {
			App appView `json:"app"`
		}
		if _, err := cl.get(ctx, appPath(id), &answer); err != nil && ctx.Err() == nil {
			return err
		}
		a := answer.App
		p.show("%s [%s] %d of %d running %s", id, bar(a.TasksRunning, a.Instances), a.TasksRunning, a.Instances, a.health())
		well := a.TasksRunning == a.Instances && len(a.Deployments) == 0 && (len(a.HealthChecks) == 0 || a.TasksHealthy == a.Instances)
		switch {
		case !well:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > settled:
			return nil
		}
		select {
		case <-ctx.Done():
			return &Error{Code: ExitTimeout, Message: id + " is not as it should be yet", Next: "marina app show " + id}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// change is a verb's common tail: send, tell, follow the deployment if asked.
type change struct {
	wait    bool
	force   bool
	timeout time.Duration
}

func (ch *change) flags(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&ch.wait, "wait", false, "follow the deployment to its end")
	c.Flags().BoolVar(&ch.force, "force", false, "override a running deployment")
	c.Flags().DurationVar(&ch.timeout, "timeout", 10*time.Minute, "how long --wait waits")
	return c
}

func (ch *change) query() string {
	if ch.force {
		return "?force=true"
	}
	return ""
}

// finish prints what a change answered and follows its deployment.
func (v *invocation) finish(ctx context.Context, cl *client, ch *change, answer []byte, done string) error {
	if v.json {
		if err := v.raw(answer); err != nil {
			return err
		}
	}
	var d struct {
		DeploymentID string `json:"deploymentId"`
		Deployments  []struct {
			ID string `json:"id"`
		} `json:"deployments"`
	}
	if err := json.Unmarshal(answer, &d); err != nil {
		return fmt.Errorf("the answer is not what this version expects: %w", err)
	}
	if d.DeploymentID == "" && len(d.Deployments) > 0 {
		d.DeploymentID = d.Deployments[0].ID
	}
	if !ch.wait {
		if !v.json && !v.quiet {
			fmt.Fprintf(v.out, "%s, deployment %s (follow it: marina deployment follow %s)\n", done, d.DeploymentID, d.DeploymentID)
		}
		return nil
	}
	if err := v.follow(ctx, cl, d.DeploymentID, ch.timeout); err != nil {
		return err
	}
	if !v.json && !v.quiet {
		fmt.Fprintln(v.out, done)
	}
	return nil
}

func (v *invocation) appAdd() *cobra.Command {
	var ch change
	return ch.flags(&cobra.Command{Use: "add FILE", Short: "Add a service from its definition (- reads standard input)",
		Long: "Adds a service from Marathon's JSON. A service that exists is a conflict; `marina app update` changes it.",
		Args: exactly(1), RunE: func(c *cobra.Command, args []string) error {
			def, id, err := v.definition(args[0])
			if err != nil {
				return err
			}
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.call(c.Context(), http.MethodPost, marathon+"/apps"+ch.query(), def)
			if err != nil {
				return err
			}
			return v.finish(c.Context(), cl, &ch, b, "added "+id)
		}})
}

func (v *invocation) appUpdate() *cobra.Command {
	var ch change
	return ch.flags(&cobra.Command{Use: "update FILE | ID NAME=VALUE...",
		Short: "Change a service: apply its definition (adding it if new), or set single fields",
		Long: "With a file, the service becomes what the file says, and is added if it is new; applying it again changes nothing.\n" +
			"With an id, single fields are set: marina app update /hello instances=5 env.GREETING=Hi",
		Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				def, id, err := v.definition(args[0])
				if err != nil {
					return err
				}
				q := "?partialUpdate=false"
				if ch.force {
					q += "&force=true"
				}
				b, err := cl.call(c.Context(), http.MethodPut, appPath(id)+q, def)
				if err != nil {
					return err
				}
				return v.finish(c.Context(), cl, &ch, b, "updated "+id)
			}
			patch, err := v.patch(c.Context(), cl, args[0], args[1:])
			if err != nil {
				return err
			}
			b, err := cl.call(c.Context(), http.MethodPatch, appPath(args[0])+ch.query(), patch)
			if err != nil {
				return err
			}
			return v.finish(c.Context(), cl, &ch, b, "updated "+args[0])
		}})
}

// patch makes a partial update of NAME=VALUE; maps (env, labels) are sent whole, so the current ones are read first.
func (v *invocation) patch(ctx context.Context, cl *client, id string, sets []string) (map[string]any, error) {
	patch := map[string]any{}
	var now struct {
		App map[string]any `json:"app"`
	}
	for _, set := range sets {
		name, value, ok := strings.Cut(set, "=")
		if !ok || name == "" {
			return nil, usage("marina app update --help", "%q is not NAME=VALUE", set)
		}
		var parsed any = value
		field, key, nested := strings.Cut(name, ".")
		if !nested {
			var number any
			if json.Unmarshal([]byte(value), &number) == nil {
				parsed = number
			}
			patch[name] = parsed
			continue
		}
		if now.App == nil {
			if _, err := cl.get(ctx, appPath(id), &now); err != nil {
				return nil, err
			}
		}
		m, ok := patch[field].(map[string]any)
		if !ok {
			if m, ok = now.App[field].(map[string]any); !ok {
				m = map[string]any{}
			}
		}
		m[key] = value
		patch[field] = m
	}
	return patch, nil
}

func (v *invocation) appScale() *cobra.Command {
	var ch change
	return ch.flags(&cobra.Command{Use: "scale ID COUNT", Short: "Change how many instances run", Args: exactly(2),
		ValidArgsFunction: v.completeApps, RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return usage("marina app scale "+args[0]+" 3", "%q is not a number of instances", args[1])
			}
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.call(c.Context(), http.MethodPatch, appPath(args[0])+ch.query(), map[string]int{"instances": n})
			if err != nil {
				return err
			}
			return v.finish(c.Context(), cl, &ch, b, fmt.Sprintf("scaled %s to %d", args[0], n))
		}})
}

func (v *invocation) appRestart() *cobra.Command {
	var ch change
	return ch.flags(&cobra.Command{Use: "restart ID", Short: "Replace all instances, rolling", Args: exactly(1),
		ValidArgsFunction: v.completeApps, RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.call(c.Context(), http.MethodPost, appPath(args[0])+"/restart"+ch.query(), nil)
			if err != nil {
				return err
			}
			return v.finish(c.Context(), cl, &ch, b, "restarted "+args[0])
		}})
}

func (v *invocation) appRemove() *cobra.Command {
	var ch change
	return ch.flags(&cobra.Command{Use: "remove ID", Short: "Stop all instances and forget the service", Args: exactly(1),
		ValidArgsFunction: v.completeApps, RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			b, err := cl.call(c.Context(), http.MethodDelete, appPath(args[0])+"?force="+strconv.FormatBool(ch.force), nil)
			if err != nil {
				return err
			}
			return v.finish(c.Context(), cl, &ch, b, "removed "+args[0])
		}})
}

func (v *invocation) completeApps(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
	defer cancel()
	cl, err := v.client(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var answer struct {
		Apps []appView `json:"apps"`
	}
	if _, err := cl.get(ctx, marathon+"/apps", &answer); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, a := range answer.Apps {
		out = append(out, a.ID)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
