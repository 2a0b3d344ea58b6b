package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/core"
)

const (
	maxQuotaBody = 64 << 10
	maxAsked     = 16 // agents asked for the files of a task that only they may remember
)

// Task is one task as the API shows it.
type Task struct {
	ID        kernel.TaskID     `json:"id"`
	Group     kernel.InstanceID `json:"group"`
	Name      string            `json:"name,omitempty"` // in its instance
	Framework string            `json:"framework"`
	Owner     string            `json:"owner"`
	Version   string            `json:"version,omitempty"`
	Machine   kernel.AgentID    `json:"machine"`
	Hostname  string            `json:"hostname"`
	Address   netip.Addr        `json:"address,omitzero"`
	HostPorts []uint16          `json:"hostPorts,omitempty"` // the instance's
	Goal      kernel.Goal       `json:"goal"`
	Why       string            `json:"why,omitempty"`
	State     kernel.State      `json:"state"`
	Healthy   bool              `json:"healthy"`
	Placed    time.Time         `json:"placed"`
	Away      time.Time         `json:"away,omitzero"` // its machine cannot be reached since
	Status    kernel.Status     `json:"status"`
}

// tasksOf lists the tasks of an instance.
func tasksOf(r *kernel.Record) []Task {
	i := r.Instance()
	out := make([]Task, len(i.Statuses))
	for k := range out {
		out[k] = Task{ID: i.Statuses[k].Task, Group: i.ID, Name: r.Tasks[k].Name, Framework: i.Framework, Owner: i.Owner,
			Version: i.Version, Machine: i.Agent, Hostname: i.Hostname, Address: i.Address, HostPorts: i.HostPorts,
			Goal: i.Goal, Why: i.Why, State: i.Statuses[k].State,
			Healthy: i.Statuses[k].Healthy(), Placed: i.Placed, Away: i.Away, Status: i.Statuses[k]}
	}
	return out
}

// api answers requests, and asks access before.
type api struct {
	*Master
	access access.Authorizer
}

func (m *api) may(r *http.Request, a access.Action, of access.Resource) error {
	return access.Check(r.Context(), m.access, a, of)
}

// Handler answers /machines/v1, /quota/v1, /tasks/v1 and /net/v1. Paths are taken as they were sent, so that an escaped
// slash stays in its segment. It asks z about what a request is about, and leaves out of lists what its reader may not
// see: tasks and VIPs by their owner, quotas by their role.
func (m *Master) Handler(z access.Authorizer) http.Handler { return (&api{m, z}).handler() }

func (m *api) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		path := r.URL.EscapedPath()
		if rest, ok := under(path, "/machines/v1"); ok {
			err = m.machines(w, r, rest)
		} else if rest, ok := under(path, "/quota/v1"); ok {
			err = m.quotas(w, r, rest)
		} else if rest, ok := under(path, "/tasks/v1"); ok {
			err = m.tasks(w, r, rest)
		} else if rest, ok := under(path, "/net/v1"); ok {
			err = m.net(w, r, rest)
		} else {
			err = fmt.Errorf("path %s: %w", path, errdefs.ErrNotFound)
		}
		if err != nil {
			writeError(w, err)
		}
	})
}

func under(path, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return strings.TrimPrefix(rest, "/"), true
}

func (m *api) machines(w http.ResponseWriter, r *http.Request, rest string) error {
	if id, role, ok := strings.Cut(rest, "/reserved"); ok && (role == "" || role[0] == '/') {
		return m.reservations(w, r, id, role)
	}
	rest, metrics := strings.CutSuffix(rest, "/metrics")
	id, err := url.PathUnescape(rest)
	if err != nil {
		return fmt.Errorf("machine %s: %w", rest, errdefs.ErrInvalidArgument)
	}
	if metrics {
		return m.machineMetrics(w, r, kernel.AgentID(id))
	}
	methods := []string{http.MethodGet, http.MethodHead}
	if id != "" {
		methods = append(methods, http.MethodDelete)
	}
	if err := allow(w, r, methods...); err != nil {
		return err
	}
	if err := m.may(r, access.Of(r.Method), access.Machines.Of(id)); err != nil {
		return err
	}
	if r.Method == http.MethodDelete {
		return m.removeMachine(w, r, kernel.AgentID(id))
	}
	shown := m.snapshot()
	if shown == nil {
		return errLost
	}
	if rest == "" {
		return writeJSON(w, map[string]any{"machines": orEmpty(shown.Machines)})
	}
	for _, v := range shown.Machines {
		if v.ID == kernel.AgentID(id) {
			return writeJSON(w, v)
		}
	}
	return fmt.Errorf("machine %s: %w", id, errdefs.ErrNotFound)
}

// machineMetrics has a machine's agent answer what it counts and times.
func (m *api) machineMetrics(w http.ResponseWriter, r *http.Request, id kernel.AgentID) error {
	if err := allow(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if err := m.may(r, access.Read, access.Metrics.Of(string(id))); err != nil {
		return err
	}
	transport, err := m.AgentClient(id)
	if err != nil {
		return fmt.Errorf("machine %s: %w", id, err)
	}
	m.forward(w, r, transport, "/agent/v1/metrics", false)
	return nil
}

// removeMachine takes a machine out for good: DELETE /machines/v1/ID?force=true.
func (m *api) removeMachine(w http.ResponseWriter, r *http.Request, id kernel.AgentID) error {
	force := false
	if raw := r.URL.Query().Get("force"); raw != "" {
		var err error
		if force, err = strconv.ParseBool(raw); err != nil {
			return fmt.Errorf("force %.16q: it is true or false: %w", raw, errdefs.ErrInvalidArgument)
		}
	}
	what, err := m.RemoveMachine(r.Context(), id, force)
	if err != nil {
		return err
	}
	m.log.Info("machine removed", "agent", id, "groups", len(what.Instances), "lost", len(what.Lost))
	return writeJSON(w, what)
}

// readBody reads a request's small JSON body, without fields that are not known.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuotaBody))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// reservations changes what of a machine is kept for a role: /machines/v1/ID/reserved/prod/web.
func (m *api) reservations(w http.ResponseWriter, r *http.Request, id, role string) error {
	if err := allow(w, r, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	id, err := url.PathUnescape(id)
	if err != nil {
		return fmt.Errorf("machine %s: %w", id, errdefs.ErrInvalidArgument)
	}
	if role, err = url.PathUnescape(role); err != nil {
		return fmt.Errorf("role %s: %w", role, errdefs.ErrInvalidArgument)
	}
	if err := m.may(r, access.Update, access.Machines.Of(id)); err != nil {
		return err
	}
	kept := kernel.ReservedPart{Role: "/" + strings.Trim(role, "/")}
	if r.Method == http.MethodPut {
		if err := readBody(w, r, &kept.Amount); err != nil {
			return fmt.Errorf("reservation for %s: the body is not what is expected, "+
				`{"milliCPU": 4000, "mem": 8589934592}: %w`, kept.Role, errdefs.ErrInvalidArgument)
		}
		if kept.Amount.IsZero() {
			return fmt.Errorf("reservation for %s: it keeps nothing; DELETE takes one away: %w", kept.Role,
				errdefs.ErrInvalidArgument)
		}
	}
	if err := m.Reserve(r.Context(), kernel.AgentID(id), kept); err != nil {
		return err
	}
	if r.Method == http.MethodDelete {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return writeJSON(w, &kept)
}

func (m *api) quotas(w http.ResponseWriter, r *http.Request, rest string) error {
	rest, err := url.PathUnescape(rest)
	if err != nil {
		return fmt.Errorf("role %s: %w", rest, errdefs.ErrInvalidArgument)
	}
	role := "/" + strings.Trim(rest, "/")
	if a := access.Of(r.Method); a != access.Read {
		if err := m.may(r, a, access.Quota.Of(role)); err != nil {
			return err
		}
	}
	switch r.Method {
	case http.MethodPut:
		if err := m.putQuota(w, r, role); err != nil {
			return err
		}
	case http.MethodDelete:
		if err := m.RemoveQuota(r.Context(), role); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	default:
		if err := allow(w, r, http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete); err != nil {
			return err
		}
	}
	var list []kernel.QuotaView
	if err := m.look(r.Context(), func(s *core.State) { list = s.Quotas() }); err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(q kernel.QuotaView) bool {
		return m.may(r, access.Read, access.Quota.Of(q.Role)) != nil
	})
	if rest == "" && r.Method != http.MethodPut {
		return writeJSON(w, map[string]any{"quotas": orEmpty(list)})
	}
	for k := range list {
		if list[k].Role == role {
			return writeJSON(w, &list[k])
		}
	}
	return fmt.Errorf("role %s has no quota and uses nothing: %w", role, errdefs.ErrNotFound)
}

// putQuota gives a role the quota of a request's body.
func (m *api) putQuota(w http.ResponseWriter, r *http.Request, role string) error {
	var body struct {
		Guarantee kernel.Resources  `json:"guarantee"`
		Limit     *kernel.Resources `json:"limit"`
		Weight    float64           `json:"weight"`
		Force     bool              `json:"force"`
	}
	if err := readBody(w, r, &body); err != nil {
		return fmt.Errorf("quota of %s: the body is not what is expected, "+
			`{"guarantee": {"milliCPU": 1000}, "limit": {"milliCPU": 4000, "mem": -1, "disk": -1, "gpus": -1}, `+
			`"weight": 2}: %w`, role, errdefs.ErrInvalidArgument)
	}
	q := kernel.Quota{Role: role, Guarantee: body.Guarantee, Limit: kernel.NoLimit, Weight: body.Weight}
	switch {
	case body.Limit != nil:
		q.Limit = *body.Limit
	case q.Guarantee.IsZero() && q.Weight == 0:
		return fmt.Errorf("quota of %s: limit is missing, and guarantee and weight: %w", role, errdefs.ErrInvalidArgument)
	}
	return m.SetQuota(r.Context(), q, body.Force)
}

func (m *api) tasks(w http.ResponseWriter, r *http.Request, rest string) error {
	segment, rest, _ := strings.Cut(rest, "/")
	raw, err := url.PathUnescape(segment)
	if err != nil || len(raw) > 2*core.MaxInstanceIDBytes {
		return fmt.Errorf("task %.64s: %w", segment, errdefs.ErrInvalidArgument)
	}
	if id := kernel.TaskID(raw); rest != "" {
		return m.taskFiles(w, r, id, rest)
	} else if id != "" {
		return m.task(w, r, id)
	}
	if err := allow(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	var records []*kernel.Record
	if err := m.look(r.Context(), func(s *core.State) { records = s.Instances("") }); err != nil {
		return err
	}
	list := make([]Task, 0, len(records))
	for _, record := range records {
		if m.may(r, access.Read, access.Tasks.Of(record.Owner)) == nil {
			list = append(list, tasksOf(record)...)
		}
	}
	return writeJSON(w, map[string]any{"tasks": list})
}

func (m *api) task(w http.ResponseWriter, r *http.Request, id kernel.TaskID) error {
	if err := allow(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	var of *kernel.Record
	var k int
	var found bool
	if err := m.look(r.Context(), func(s *core.State) { of, k, found = s.Task(id) }); err != nil {
		return err
	}
	if !found {
		return unknownTask(id)
	}
	if err := m.may(r, access.Read, access.Tasks.Of(of.Owner)); err != nil {
		return err
	}
	return writeJSON(w, tasksOf(of)[k])
}

func unknownTask(id kernel.TaskID) error {
	return fmt.Errorf("task %s does not run, and is not among those that ended lately: %w", id, errdefs.ErrNotFound)
}

// taskFiles has the task's agent answer: what it logs, what is in its sandbox, and a further process in it.
func (m *api) taskFiles(w http.ResponseWriter, r *http.Request, id kernel.TaskID, rest string) error {
	what, _, _ := strings.Cut(rest, "/")
	switch {
	case what == "exec" && rest == what:
		if err := allow(w, r, http.MethodPost); err != nil {
			return err
		}
	case rest == "logs/stdout", rest == "logs/stderr", what == "files":
		if err := allow(w, r, http.MethodGet, http.MethodHead); err != nil {
			return err
		}
	default:
		return fmt.Errorf("task %s has no %s: ask for logs/stdout, logs/stderr, files/PATH or exec: %w", id, rest,
			errdefs.ErrNotFound)
	}
	agents, owner, err := m.holders(r.Context(), id, what != "exec")
	if err != nil {
		return err
	}
	action := access.Exec
	if what == "logs" {
		action = access.Read
	}
	if err := m.may(r, action, access.Tasks.Of(owner)); err != nil {
		return err
	}
	for n, agent := range agents {
		transport, err := m.AgentClient(agent)
		if err != nil {
			return fmt.Errorf("task %s: %w", id, err)
		}
		if again := m.forward(w, r, transport, "/agent/v1/tasks/"+url.PathEscape(string(id))+"/"+rest,
			n < len(agents)-1); !again {
			return nil
		}
	}
	return unknownTask(id)
}

// holders is the agent of a task. One that the master does not know may have ended under an earlier leader: its agent
// keeps its files for a while, so, with a few agents, each is asked; whose it was is not known then, and the owner is
// "/".
func (m *api) holders(ctx context.Context, id kernel.TaskID, ended bool) (out []kernel.AgentID, owner string,
	err error) {
	owner = "/"
	err = m.look(ctx, func(s *core.State) {
		if i, _, ok := s.Task(id); ok {
			out, owner = []kernel.AgentID{i.Agent}, i.Owner
			return
		}
		if ended {
			out = s.Connected()
		}
	})
	if err == nil && (len(out) == 0 || len(out) > maxAsked) {
		err = unknownTask(id)
	}
	return out, owner, err
}

var errElsewhere = errors.New("not this agent's")

// forward lets an agent answer a request, both directions at once. With more agents to ask, one that does not know the
// task is passed over: again is then true and nothing has been written.
func (m *api) forward(w http.ResponseWriter, r *http.Request, transport http.RoundTripper, path string,
	more bool) (again bool) {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 has it anyway
	proxy := httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = &url.URL{Scheme: "https", Host: "agent", RawPath: path, RawQuery: p.In.URL.RawQuery}
			p.Out.URL.Path, _ = url.PathUnescape(path)
			p.Out.Header.Del("Authorization")
			p.Out.Header.Del("Cookie")
		},
		ModifyResponse: func(resp *http.Response) error {
			if more && resp.StatusCode == http.StatusNotFound {
				return errElsewhere
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if again = errors.Is(err, errElsewhere); again || r.Context().Err() != nil {
				return
			}
			m.log.Info("agent did not answer", "path", path, "err", err)
			writeError(w, fmt.Errorf("the connection to the machine was lost: try again: %w", errdefs.ErrUnavailable))
		},
	}
	proxy.ServeHTTP(w, r)
	return again
}
