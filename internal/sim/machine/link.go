package machine

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/rare"
	"github.com/marinaos/marina/internal/sim/timeline"
)

// Weather describes the network's treatment of frames; chances are per frame.
type Weather struct {
	Lose, Double, Reorder, Slow float64
}

// Link is one connection of an agent to a master: a session, or what will be one. Each end believes for itself whether
// it stands.
type Link struct {
	w        *Env
	Serial   int
	Agent    *Agent
	Master   Master
	up, down time.Duration // when the last frame of each direction arrives: frames overtake each other only by a fault
	AgentEnd, MasterEnd,
	Registered bool
	Robbed bool // planted
}

const (
	latencyMin = 200 * time.Microsecond
	latencyMax = 5 * time.Millisecond
	slowMax    = 2 * time.Second

	// silenceMin and silenceMax are how long an end takes to notice that the other does not answer any more.
	silenceMin = 2 * time.Second
	silenceMax = 12 * time.Second
)

// carry delivers one frame, or does not, or does it twice, by the weather. Arrives is the direction's order.
func (l *Link) carry(arrives *time.Duration, to *timeline.Actor, deliver func()) {
	w := l.w
	if l.Agent.Cut {
		return
	}
	if w.Dice.Chance(w.Weather.Lose) {
		w.Reach(rare.FrameLost)
		l.Broken() // a stream does not survive it, sooner or later
		return
	}
	at := w.Now + w.Dice.Between(latencyMin, latencyMax)
	if w.Dice.Chance(w.Weather.Slow) {
		at += w.Dice.Between(0, slowMax)
	}
	if w.Dice.Chance(w.Weather.Reorder) && *arrives > at {
		w.Reach(rare.FrameReordered)
	} else if at <= *arrives {
		at = *arrives
	}
	if *arrives = max(*arrives, at); w.Dice.Chance(w.Weather.Double) {
		w.Reach(rare.FrameDoubled)
		w.After(at-w.Now+w.Dice.Between(0, latencyMax), to, deliver)
	}
	w.After(at-w.Now, to, deliver)
}

// sendUp carries an agent's frame to its master.
func (l *Link) sendUp(f kernel.Up) {
	l.carry(&l.up, l.Master.Process(), func() {
		if l.MasterEnd {
			l.Master.Receive(l, f)
		}
	})
}

// SendDown carries a master's frame to its agent.
func (l *Link) SendDown(f kernel.Down) {
	l.carry(&l.down, &l.Agent.Actor, func() {
		if l.AgentEnd {
			l.Agent.receive(l, f)
		}
	})
}

// CloseBy ends the link at one end; the other hears of it, at once or when it has been silent for too long.
func (l *Link) CloseBy(agent bool, why string) {
	w := l.w
	if agent && l.AgentEnd {
		l.AgentEnd = false
		w.Note(l.Agent.Name, "session %d ends: ", why, int64(l.Serial), 0)
		w.After(l.hangup(), l.Master.Process(), l.masterHears)
	}
	if !agent && l.MasterEnd {
		l.MasterEnd = false
		w.Note(l.Master.Name(), "session %d ends: ", why, int64(l.Serial), 0)
		w.After(l.hangup(), &l.Agent.Actor, l.agentHears)
	}
}

func (l *Link) hangup() time.Duration {
	if l.Agent.Cut {
		return l.w.Dice.Between(silenceMin, silenceMax)
	}
	return l.w.Dice.Between(latencyMin, latencyMax)
}

func (l *Link) agentHears() {
	if l.AgentEnd {
		l.AgentEnd = false
		l.Agent.lost(l)
	}
}

func (l *Link) masterHears() {
	if l.MasterEnd {
		l.MasterEnd = false
		l.Master.Lost(l)
	}
}

// Broken lets each end that still stands notice that the other's process is gone, or the way between them cut.
func (l *Link) Broken() {
	if l.AgentEnd {
		l.w.After(l.w.Dice.Between(silenceMin, silenceMax), &l.Agent.Actor, l.agentHears)
	}
	if l.MasterEnd {
		l.w.After(l.w.Dice.Between(silenceMin, silenceMax), l.Master.Process(), l.masterHears)
	}
}
