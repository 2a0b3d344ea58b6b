package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// agentRecord is what an agent knows about itself: its own checkpoint.
type agentRecord struct {
	ID      kernel.AgentID      `json:"id"`
	Epoch   int64               `json:"epoch"` // highest of a leader it has listened to
	Boot    string              `json:"boot"`
	Disk    int64               `json:"disk"` // bytes given to tasks, measured once so that it does not shrink with their use
	Subnet  netip.Prefix        `json:"subnet,omitzero"`
	Network *kernel.NetworkInfo `json:"network,omitempty"`
}

// record is a group's checkpoint: everything needed to go on with it after any crash.
type record struct {
	Agent  kernel.AgentID `json:"agent"`
	Epoch  int64          `json:"epoch"` // under which it was assigned
	Boot   string         `json:"boot"`  // the machine's when its containers were made
	Group  kernel.Group   `json:"group"`
	Spec   kernel.Spec    `json:"spec"`
	Tasks  []taskRecord   `json:"tasks"`
	Ending *ending        `json:"ending,omitempty"` // it is decided that it ends, and why
}

// taskRecord is a task's part of its group's checkpoint.
type taskRecord struct {
	Container string        `json:"container,omitempty"`
	Phase     phase         `json:"phase,omitempty"`
	Status    kernel.Status `json:"status"` // the latest, Seq included
}

// phase is how far a task's container has come, as far as the disk knows. It is written before the act it allows.
type phase string

const (
	phaseNone    phase = ""        // nothing was done
	phaseCreated phase = "created" // the container may exist, and may even have been started a moment ago
	phaseStarted phase = "started" // it was started
	phaseEnded   phase = "ended"   // its terminal status is decided; what is left of it is to be removed
)

// ending is why a group ends. Tasks that ended by themselves keep their own verdict.
type ending struct {
	State  kernel.State  `json:"state"` // Killed when it was told to
	Reason kernel.Reason `json:"reason"`
	Why    string        `json:"why"`
	Task   int           `json:"task"` // the index of the task that caused it; all is every task
}

const all = -1

// newRecord is a group before anything was done for it.
func newRecord(self agentRecord, boot string, g kernel.Group, s kernel.Spec) record {
	r := record{Agent: self.ID, Epoch: self.Epoch, Boot: boot, Group: g, Spec: s}
	for _, id := range s.TaskIDs(g.ID) {
		r.Tasks = append(r.Tasks, taskRecord{Container: ContainerID(id, boot), Status: kernel.Status{Task: id, Group: g.ID}})
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
	ids := r.Spec.TaskIDs(r.Group.ID)
	if len(ids) == 0 || len(ids) != len(r.Tasks) {
		return false
	}
	for i, id := range ids {
		s := r.Tasks[i].Status
		if s.Task != id || s.Group != r.Group.ID {
			return false
		}
		if len(s.Health) != 0 && len(s.Health) != len(r.Spec.Tasks[i].Checks) {
			return false
		}
	}
	return r.Ending == nil || r.Ending.Task >= all && r.Ending.Task < len(ids)
}

// groupFile is the name of a group's checkpoint. A hash, so that no group id can be a path or too long for a name.
func groupFile(g kernel.GroupID) string {
	sum := sha256.Sum256([]byte(g))
	return hex.EncodeToString(sum[:16]) + checkpointExt
}

// ContainerID names a task's container: readable, filename-safe, at most 64 characters of [a-zA-Z0-9-], and different for
// each boot, so that a container of before a restart of the machine is never taken for a later one.
func ContainerID(t kernel.TaskID, boot string) string {
	sum := sha256.Sum256([]byte(string(t) + "\x00" + boot))
	return dashed(string(t), 40) + "-" + hex.EncodeToString(sum[:10])
}

// dashed makes a name of letters, digits and single inner dashes out of s, keeping its last limit characters, where ids
// differ most.
func dashed(s string, limit int) string {
	parts := strings.FieldsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	})
	out := strings.Join(parts, "-")
	if len(out) > limit {
		out = strings.TrimLeft(out[len(out)-limit:], "-")
	}
	if out == "" {
		return "task"
	}
	return out
}

// maxName is the longest task id an agent takes: it names the sandbox.
const maxName = 200

// safeName reports whether a task id can name a folder as it is.
func safeName(id kernel.TaskID) bool {
	if id == "" || len(id) > maxName || id[0] == '.' || id[0] == '-' {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-~@+=", c) >= 0) {
			return false
		}
	}
	return true
}
