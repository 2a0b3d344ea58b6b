package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"path"

	"github.com/marinaos/marina/internal/agent/checkpoint"
	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/kernel"
)

// agentRecord is the agent's own checkpoint.
type agentRecord struct {
	ID    kernel.AgentID `json:"id"`
	Epoch int64          `json:"epoch"` // highest of a leader it has listened to
	Boot  string         `json:"boot"`
	// bytes given to tasks, measured once so that it does not shrink with their use
	Disk    int64               `json:"disk"`
	Subnet  netip.Prefix        `json:"subnet,omitzero"`
	Network *kernel.NetworkInfo `json:"network,omitempty"`
}

// record is an instance's checkpoint: everything needed to go on with it after any crash.
type record struct {
	Agent      kernel.AgentID    `json:"agent"`
	Epoch      int64             `json:"epoch"` // under which it was assigned
	Boot       string            `json:"boot"`  // the machine's when its containers were made
	Assignment kernel.Assignment `json:"group"`
	Spec       kernel.Spec       `json:"spec"`
	Tasks      []taskRecord      `json:"tasks"`
	Ending     *ending           `json:"ending,omitempty"` // it is decided that it ends, and why
}

// taskRecord is a task's part of its instance's checkpoint.
type taskRecord struct {
	Container string        `json:"container,omitempty"`
	Phase     phase         `json:"phase,omitempty"`
	Status    kernel.Status `json:"status"` // the latest, Seq included
}

// phase is the progress of a task's container, as far as the disk knows. It is written before the act it allows.
type phase string

const (
	phaseNone    phase = ""        // nothing was done
	phaseCreated phase = "created" // the container may exist, and may even have been started a moment ago
	phaseStarted phase = "started" // it was started
	phaseEnded   phase = "ended"   // its terminal status is decided; what is left of it is to be removed
)

// ending is why an instance ends. Tasks that ended by themselves keep their own verdict.
type ending struct {
	State  kernel.State  `json:"state"` // Killed when it was told to
	Reason kernel.Reason `json:"reason"`
	Why    string        `json:"why"`
	Task   int           `json:"task"` // the index of the task that caused it; all is every task
}

const all = -1

// newRecord is an instance before anything was done for it.
func newRecord(self agentRecord, boot string, g kernel.Assignment, s kernel.Spec) record {
	r := record{Agent: self.ID, Epoch: self.Epoch, Boot: boot, Assignment: g, Spec: s}
	for _, id := range s.TaskIDs(g.ID) {
		r.Tasks = append(r.Tasks, taskRecord{Container: naming.Container(id, boot),
			Status: kernel.Status{Task: id, Instance: g.ID}})
	}
	return r
}

// terminal reports whether every task's end is decided.
func (r *record) terminal() bool {
	for i := range r.Tasks {
		if !r.Tasks[i].Status.State.Terminal() {
			return false
		}
	}
	return true
}

// valid reports whether the record's parts fit together, so that nothing later needs to check an index.
func (r *record) valid() bool {
	ids := r.Spec.TaskIDs(r.Assignment.ID)
	if len(ids) == 0 || len(ids) != len(r.Tasks) {
		return false
	}
	for i, id := range ids {
		s := r.Tasks[i].Status
		if s.Task != id || s.Instance != r.Assignment.ID {
			return false
		}
		if len(s.Health) != 0 && len(s.Health) != len(r.Spec.Tasks[i].Checks) {
			return false
		}
	}
	return r.Ending == nil || r.Ending.Task >= all && r.Ending.Task < len(ids)
}

// groupFile is the name of an instance's checkpoint.
func checkpointFile(g kernel.InstanceID) string {
	return path.Join(instancesDir, naming.Instance(g)+checkpoint.Ext)
}

const (
	instancesDir = "groups"
	agentFile    = "agent" + checkpoint.Ext
)

// readGroups reads the checkpoints of all instances. Damaged ones are set aside and missing from the answer.
func readInstances(d *checkpoint.Dir) ([]record, error) {
	names, err := d.List(instancesDir)
	if err != nil {
		return nil, err
	}
	var out []record
	for _, name := range names {
		var r record
		err := d.Load(name, &r)
		if err == nil && (!r.valid() || checkpointFile(r.Assignment.ID) != name) {
			err = d.SetAside(name, fmt.Errorf("%w: its parts do not fit together", checkpoint.ErrCorrupt))
		}
		if errors.Is(err, checkpoint.ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("agent state: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}
