package sim

import (
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/timeline"
)

// weather is how the network treats frames; chances are per frame.
type weather struct {
	lose, double, reorder, slow float64
}

// link is one connection of an agent to a master: a session, or what will be one. Each end believes for itself whether
// it stands.
type link struct {
	w        *World
	serial   int
	agent    *agent
	master   *master
	up, down time.Duration // when the last frame of each direction arrives: frames overtake each other only by a fault
	agentEnd, masterEnd,
	registered bool
	robbed bool // planted
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
func (l *link) carry(arrives *time.Duration, to *timeline.Actor, deliver func()) {
	w := l.w
	if l.agent.cut {
		return
	}
	if w.dice.Chance(w.weather.lose) {
		w.reach(FrameLost)
		l.broken() // a stream does not survive it, sooner or later
		return
	}
	at := w.Now + w.dice.Between(latencyMin, latencyMax)
	if w.dice.Chance(w.weather.slow) {
		at += w.dice.Between(0, slowMax)
	}
	if w.dice.Chance(w.weather.reorder) && *arrives > at {
		w.reach(FrameReordered)
	} else if at <= *arrives {
		at = *arrives
	}
	if *arrives = max(*arrives, at); w.dice.Chance(w.weather.double) {
		w.reach(FrameDoubled)
		w.After(at-w.Now+w.dice.Between(0, latencyMax), to, deliver)
	}
	w.After(at-w.Now, to, deliver)
}

// sendUp carries an agent's frame to its master.
func (l *link) sendUp(f kernel.Up) {
	l.carry(&l.up, &l.master.Actor, func() {
		if l.masterEnd {
			l.master.receive(l, f)
		}
	})
}

// sendDown carries a master's frame to its agent.
func (l *link) sendDown(f kernel.Down) {
	l.carry(&l.down, &l.agent.Actor, func() {
		if l.agentEnd {
			l.agent.receive(l, f)
		}
	})
}

// closeBy ends the link at one end; the other hears of it, at once or when it has been silent for too long.
func (l *link) closeBy(agent bool, why string) {
	w := l.w
	if agent && l.agentEnd {
		l.agentEnd = false
		w.note(l.agent.name, "session %d ends: ", why, int64(l.serial), 0)
		w.After(l.hangup(), &l.master.Actor, l.masterHears)
	}
	if !agent && l.masterEnd {
		l.masterEnd = false
		w.note(l.master.name, "session %d ends: ", why, int64(l.serial), 0)
		w.After(l.hangup(), &l.agent.Actor, l.agentHears)
	}
}

func (l *link) hangup() time.Duration {
	if l.agent.cut {
		return l.w.dice.Between(silenceMin, silenceMax)
	}
	return l.w.dice.Between(latencyMin, latencyMax)
}

func (l *link) agentHears() {
	if l.agentEnd {
		l.agentEnd = false
		l.agent.lost(l)
	}
}

func (l *link) masterHears() {
	if l.masterEnd {
		l.masterEnd = false
		l.master.lost(l)
	}
}

// broken is what follows when one end's process is gone or the way between them is cut: each end that still stands
// notices.
func (l *link) broken() {
	if l.agentEnd {
		l.w.After(l.w.dice.Between(silenceMin, silenceMax), &l.agent.Actor, l.agentHears)
	}
	if l.masterEnd {
		l.w.After(l.w.dice.Between(silenceMin, silenceMax), &l.master.Actor, l.masterHears)
	}
}
