package sim

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/store"
)

// spoil lets the bugs of a master's loop change what a step led to.
func (m *master) spoil(e brain.Effects) brain.Effects {
	switch m.w.Plant {
	case bug.SendBeforeCommit:
		m.send(e.Sends)
		e.Sends = nil
	case bug.AckBeforeDurable:
		for i := range e.Sends {
			m.ackEarly(&e.Sends[i])
		}
	case bug.LoseGroupsOnReturn:
		for i := range e.Sends {
			l, d := m.link(e.Sends[i].Session), &e.Sends[i].Down
			if l != nil && !l.Robbed && !d.Sync && len(d.Assignments) > 0 {
				l.Robbed, d.Assignments = true, nil
			}
		}
	}
	return e
}

func (m *master) ackEarly(s *brain.Send) {
	acks := s.Down.Acks
	if s.Down.Acks = nil; len(acks) == 0 {
		return
	}
	if l := m.link(s.Session); l != nil {
		m.w.After(time.Millisecond, &l.Agent.Actor, func() {
			for _, ack := range acks {
				l.Agent.Acknowledge(ack)
			}
		})
	}
}

// spoilRows lets the bugs of loading change the rows that a new leader reads.
func (w *World) spoilRows(snap *store.Snapshot) *store.Snapshot {
	switch {
	case w.Plant.On(bug.LoadStaleRows) && w.stale != nil:
		return w.stale
	case w.Plant.On(bug.LoadNoQuotas):
		return lacking(snap, store.Prefix("kernel", "quotas"), math.MaxInt)
	case w.Plant.On(bug.LoadNoRemoved):
		return lacking(snap, store.Prefix("kernel", "removed"), math.MaxInt)
	case w.Plant.On(bug.WaitForRemoved):
		return withRemoved(snap)
	case w.Plant.On(bug.LoadSkipsChunk):
		return lacking(snap, store.Prefix("kernel", "assigned"), 1)
	}
	return snap
}

// lacking is a snapshot less the first n rows under a prefix.
func lacking(snap *store.Snapshot, prefix string, n int) *store.Snapshot {
	kept := &store.Snapshot{Revision: snap.Revision}
	for _, item := range snap.Items {
		if n > 0 && strings.HasPrefix(item.Key, prefix) {
			n--
			continue
		}
		kept.Items = append(kept.Items, item)
	}
	return kept
}

// withRemoved is a snapshot with a row for each machine that was removed, under another name.
func withRemoved(snap *store.Snapshot) *store.Snapshot {
	more := &store.Snapshot{Revision: snap.Revision, Items: slices.Clone(snap.Items)}
	for _, item := range snap.Items {
		if id, ok := strings.CutPrefix(item.Key, store.Prefix("kernel", "removed")); ok {
			more.Items = append(more.Items, store.Item{Key: store.Key("kernel", "agents", "once-"+id), Value: []byte("{}")})
		}
	}
	return more
}

// changed is a row with another value in a field.
func changed(raw []byte, field string, value any) []byte {
	var row map[string]any
	if json.Unmarshal(raw, &row) == nil {
		row[field] = value
		raw, _ = json.Marshal(row)
	}
	return raw
}

// spoilOps lets the bugs of placement change the rows that are written: the second group of a row gets the first one's
// ports, or its address.
func (w *World) spoilOps(ops []store.Op) {
	for i := range ops {
		if !w.Plant.On(bug.DoubleHostPort) && !w.Plant.On(bug.DoubleAddress) ||
			!strings.HasPrefix(ops[i].Key, store.Prefix("kernel", "assigned")) {
			continue
		}
		groups, err := kernel.UnpackAssignments(ops[i].Value)
		if ops[i].Kind != store.OpPut || err != nil || len(groups) < 2 {
			continue
		}
		switch {
		case w.Plant.On(bug.DoubleHostPort) && len(groups[0].HostPorts) == 1 && len(groups[1].HostPorts) == 1:
			groups[1].HostPorts = groups[0].HostPorts
		case w.Plant.On(bug.DoubleAddress) && groups[0].Address.IsValid() && groups[1].Address.IsValid():
			groups[1].Address = groups[0].Address
		default:
			continue
		}
		ops[i].Value, _ = json.Marshal(groups)
	}
}
