package sim

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/store"
)

// Bug is a mistake that a simulation makes on purpose, to show that an invariant would find it. It is made here, in the
// wiring between the rooms, never in their code.
type Bug string

// The planted bugs.
const (
	NoBug                Bug = ""
	SkipFence            Bug = "skip-fence"            // a leader's writes do not carry the guard on its leadership
	SendBeforeCommit     Bug = "send-before-commit"    // frames leave while the write they rest on is on its way
	LoseGroupsOnReturn   Bug = "lose-groups-on-return" // the first groups placed on an agent after it returned are not sent
	AgentKeepsUnknown    Bug = "keep-unknown-at-sync"  // an agent does not drop what a Sync does not mention
	LoadStaleRows        Bug = "load-stale-rows"       // a new leader decides on what the store held a moment ago
	LoadNoQuotas         Bug = "load-no-quotas"        // a new leader does not read the quotas
	AgentTakesLowerEpoch Bug = "accept-lower-epoch"    // an agent applies frames of a leader that was replaced
	AckBeforeDurable     Bug = "ack-before-durable"    // terminal statuses are acknowledged before their commit
	ForgetQueue          Bug = "forget-the-queue"      // what waits is not tried again when room appears
	AgentForgetsRunning  Bug = "forget-at-restart"     // an agent process starts without its disk and runs its instances anew
	TrustUnknownOutcome  Bug = "trust-unknown-outcome" // a leader goes on after a write of unknown outcome as if it were durable
	DoubleHostPort       Bug = "double-host-port"      // two instances of an agent are given one host port
	CountOnlyKnown       Bug = "count-only-known"      // a scheduler replaces what has not reported to a new leader yet
	NewsOutOfOrder       Bug = "news-out-of-order"     // schedulers hear of the changes of one commit backwards
	PrioritiesReversed   Bug = "priorities-reversed"   // what is launched with a high priority gets a low one
	LoseDurable          Bug = "lose-durable"          // the store answers that a write is durable and loses it
	ForgetBeforeAck      Bug = "forget-before-ack"     // an agent forgets a task that ended as soon as it has told so once
	DoubleAddress        Bug = "double-address"        // two instances of an agent are given one address
	LoadSkipsChunk       Bug = "load-skips-chunk"      // a new leader does not read one of the rows of what is assigned
	NewsLost             Bug = "news-lost"             // schedulers do not hear of the end of some instances
	EpochInSession       Bug = "epoch-in-session"      // an agent forgets the newest leader's epoch when it dials
	LoseRemoval          Bug = "lose-removal"          // that a machine was removed is not written
	SubnetKept           Bug = "subnet-kept"           // the subnets of machines that were removed are not given to others
	BrakeCountsRemoved   Bug = "brake-counts-removed"  // machines that were removed count as away when something is to be given up
	WaitForRemoved       Bug = "wait-for-removed"      // a new leader waits for machines that were removed
	ReservationForgotten Bug = "reservation-forgotten" // the reservations of a machine that was removed are not called lost
	LoadNoRemoved        Bug = "load-no-removed"       // a new leader does not read which machines were removed
	RemovedRunsOn        Bug = "removed-runs-on"       // a machine that was removed is not told
	StopOnce             Bug = "stop-once"             // an agent's process does not go on with stopping what the one before it began to stop
)

// Bugs lists all planted bugs.
func Bugs() []Bug {
	return []Bug{SkipFence, SendBeforeCommit, LoseGroupsOnReturn, AgentKeepsUnknown, LoadStaleRows, LoadNoQuotas,
		AgentTakesLowerEpoch, AckBeforeDurable, ForgetQueue, AgentForgetsRunning, TrustUnknownOutcome, DoubleHostPort,
		CountOnlyKnown, NewsOutOfOrder, PrioritiesReversed, LoseDurable, ForgetBeforeAck, DoubleAddress, LoadSkipsChunk, NewsLost,
		EpochInSession, StopOnce, LoseRemoval, SubnetKept, BrakeCountsRemoved, WaitForRemoved, ReservationForgotten, LoadNoRemoved, RemovedRunsOn}
}

func (b Bug) on(this Bug) bool { return b == this }

// spoil is where the bugs of a master's loop change what a step led to.
func (m *master) spoil(e brain.Effects) brain.Effects {
	switch m.w.plant {
	case SendBeforeCommit:
		m.send(e.Sends)
		e.Sends = nil
	case AckBeforeDurable:
		for i := range e.Sends {
			m.ackEarly(&e.Sends[i])
		}
	case LoseGroupsOnReturn:
		for i := range e.Sends {
			l, d := m.link(e.Sends[i].Session), &e.Sends[i].Down
			if l != nil && !l.robbed && !d.Sync && len(d.Assignments) > 0 {
				l.robbed, d.Assignments = true, nil
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
		m.w.After(time.Millisecond, &l.agent.Actor, func() {
			for _, ack := range acks {
				l.agent.acknowledge(ack)
			}
		})
	}
}

// spoilRows is where the bugs of loading change what a new leader reads.
func (w *World) spoilRows(snap *store.Snapshot) *store.Snapshot {
	switch {
	case w.plant.on(LoadStaleRows) && w.stale != nil:
		return w.stale
	case w.plant.on(LoadNoQuotas):
		return lacking(snap, store.Prefix("kernel", "quotas"), math.MaxInt)
	case w.plant.on(LoadNoRemoved):
		return lacking(snap, store.Prefix("kernel", "removed"), math.MaxInt)
	case w.plant.on(WaitForRemoved):
		return withRemoved(snap)
	case w.plant.on(LoadSkipsChunk):
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

// spoilOps is where the bugs of placement change what is written: the second group of a row gets the first one's
// ports, or its address.
func (w *World) spoilOps(ops []store.Op) {
	for i := range ops {
		if !w.plant.on(DoubleHostPort) && !w.plant.on(DoubleAddress) || !strings.HasPrefix(ops[i].Key, store.Prefix("kernel", "assigned")) {
			continue
		}
		groups, err := kernel.UnpackAssignments(ops[i].Value)
		if ops[i].Kind != store.OpPut || err != nil || len(groups) < 2 {
			continue
		}
		switch {
		case w.plant.on(DoubleHostPort) && len(groups[0].HostPorts) == 1 && len(groups[1].HostPorts) == 1:
			groups[1].HostPorts = groups[0].HostPorts
		case w.plant.on(DoubleAddress) && groups[0].Address.IsValid() && groups[1].Address.IsValid():
			groups[1].Address = groups[0].Address
		default:
			continue
		}
		ops[i].Value, _ = json.Marshal(groups)
	}
}
