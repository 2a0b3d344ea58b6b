package invariant

import "github.com/marinaos/marina/internal/kernel"

// Fences judges I19: nothing of a leader that was replaced has an effect, neither a write nor a frame. The zero value
// is ready.
type Fences struct {
	leader int64 // epoch of the newest leader
	seen   map[kernel.AgentID]int64
}

// Elected tells that a leader with this epoch was elected.
func (f *Fences) Elected(epoch int64) []Violation {
	if epoch <= f.leader {
		return violated(I19Fenced, "a leader of epoch %d was elected after one of epoch %d", epoch, f.leader)
	}
	f.leader = epoch
	return nil
}

// Committed tells that a write of the leader with this epoch took effect.
func (f *Fences) Committed(epoch, revision int64) []Violation {
	if epoch == f.leader {
		return nil
	}
	return violated(I19Fenced, "revision %d was written by the leader of epoch %d while epoch %d led",
		revision, epoch, f.leader)
}

// Applied tells that an agent acted on a frame of this epoch. An agent may act on a paused leader's frames until it has
// heard of a newer one, and never after.
func (f *Fences) Applied(agent kernel.AgentID, epoch int64) []Violation {
	switch old := f.seen[agent]; {
	case epoch < old:
		return violated(I19Fenced, "agent %s acted on a frame of epoch %d after one of epoch %d", agent, epoch, old)
	case epoch > f.leader:
		return violated(I19Fenced, "agent %s acted on a frame of epoch %d, the newest leader has %d", agent, epoch, f.leader)
	case epoch > old:
		if f.seen == nil {
			f.seen = map[kernel.AgentID]int64{}
		}
		f.seen[agent] = epoch
	}
	return nil
}
