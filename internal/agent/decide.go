package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// fact is the state of a task's container, as far as the runtime can tell.
type fact struct {
	running bool          // its process runs
	exit    *runtime.Exit // its process ended so
	gone    bool          // it ran once, and nothing is left of it that could tell how it ended
	process runtime.Process
}

// fresh reports that the task's process was never started.
func (f fact) fresh() bool { return !f.running && f.exit == nil && !f.gone }

// verb names the next act on an instance.
type verb uint8

const (
	verbStart  verb = iota // make it run, or go on with that
	verbWatch              // it runs
	verbFinish             // it is to be ended, for the reason in the record
	verbClean              // its end is decided; remove what is left
)

// plan is the first act on an instance after the agent started.
type plan struct {
	do    verb
	rec   record
	facts []fact
}

// decideRecovery compares an instance's checkpoint with the containers there are.
func decideRecovery(rec record, boot string, found map[string]runtime.Found) plan {
	p := plan{rec: rec, facts: make([]fact, len(rec.Tasks))}
	if rec.terminal() {
		p.do = verbClean
		return p
	}
	if rec.Boot != boot {
		p.do = verbFinish
		for i := range p.facts {
			p.facts[i].gone = rec.Tasks[i].Phase != phaseNone
		}
		p.rec.Ending = &ending{State: kernel.Lost, Reason: kernel.ReasonReboot, Why: "its machine started anew", Task: all}
		return p
	}
	waiting, over := false, all
	for i, t := range rec.Tasks {
		f, ok := found[t.Container]
		p.facts[i] = decideFact(t, f, ok)
		waiting = waiting || p.facts[i].fresh()
		if over == all && (p.facts[i].exit != nil || p.facts[i].gone) {
			over = i
		}
	}
	switch {
	case rec.Ending != nil:
		p.do = verbFinish
	case over != all:
		p.do = verbFinish
		p.rec.Ending = endedBy(&rec, over, p.facts[over])
	case waiting:
		p.do = verbStart
	default:
		p.do = verbWatch
	}
	return p
}

// decideFact tells what became of one task. A container that was to be started and shows no sign of a process was not.
func decideFact(t taskRecord, f runtime.Found, ok bool) fact {
	switch {
	case ok && f.Running:
		if t.Phase == phaseStarted && !sameProcess(runtime.Process{PID: t.Status.PID, Started: t.Status.Started}, f.Process) {
			return fact{gone: true, process: f.Process}
		}
		return fact{running: true, process: f.Process}
	case ok && f.Exit != nil:
		return fact{exit: f.Exit, process: f.Process}
	case t.Phase == phaseStarted, ok && f.Process.PID != 0:
		return fact{gone: true, process: f.Process}
	}
	return fact{}
}

// startSlack is by how much two readings of one process's start time may differ: the kernel counts in ticks since boot.
const startSlack = 2 * time.Second

// sameProcess reports whether two sightings are of one process: a pid alone may have been given away again.
func sameProcess(a, b runtime.Process) bool {
	if a.PID != b.PID {
		return false
	}
	return a.Started.IsZero() || b.Started.IsZero() || a.Started.Sub(b.Started).Abs() <= startSlack
}

// endedBy is the end of an instance one task of which ended by itself or vanished.
func endedBy(rec *record, task int, f fact) *ending {
	if f.exit == nil {
		return &ending{State: kernel.Failed, Reason: kernel.ReasonVanished, Why: "its container is gone", Task: task}
	}
	return &ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Task: task,
		Why: fmt.Sprintf("task %s of its group ended", rec.Spec.Tasks[task].Name)}
}

// adoptRecord makes the record of an instance that the master assigned and of which containers are there but no
// checkpoint is. What was reported about it before is unknown, so its sequence goes on from a number larger than any
// that can have been reached: the seconds since 1970.
func adoptRecord(self agentRecord, g kernel.Assignment, s kernel.Spec, found []runtime.Found, now time.Time) record {
	boot := self.Boot
	if b := found[0].Labels[runtime.LabelBoot]; b != "" {
		boot = b
	}
	r := newRecord(self, boot, g, s)
	for i := range r.Tasks {
		t := &r.Tasks[i]
		t.Phase = phaseStarted
		t.Status.State, t.Status.Seq = kernel.Starting, uint64(now.Unix())
		for _, f := range found {
			if f.Labels[runtime.LabelTask] == string(t.Status.Task) {
				t.Container, t.Status.PID, t.Status.Started = f.ID, f.Process.PID, f.Process.Started
			}
		}
	}
	return r
}

// verdict is the terminal status of a task: State, Reason, Message and Exit are set on what it was before.
func verdict(rec *record, i int, f fact) kernel.Status {
	s, e := rec.Tasks[i].Status, rec.Ending
	if f.exit != nil {
		s.Exit = new(f.exit.Code)
	}
	switch {
	case s.State != kernel.Killing && f.exit != nil:
		s.State, s.Reason, s.Message = exitVerdict(rec.Assignment.Size(&rec.Spec, i), *f.exit)
	case s.State != kernel.Killing && f.gone && e.Reason != kernel.ReasonReboot:
		s.State, s.Reason, s.Message = kernel.Failed, kernel.ReasonVanished,
			"its container was gone when the agent looked for it"
	case e.Task == all || e.Task == i:
		s.State, s.Reason, s.Message = e.State, e.Reason, e.Why
	case s.State == kernel.Killing:
		s.State, s.Reason, s.Message = kernel.Killed, kernel.ReasonKilled, e.Why
	default: // the group never came to run
		s.State, s.Reason = e.State, e.Reason
		s.Message = fmt.Sprintf("task %s of its group: %s", rec.Spec.Tasks[e.Task].Name, e.Why)
	}
	if len(s.Message) > kernel.MaxMessage {
		s.Message = s.Message[:kernel.MaxMessage]
	}
	return s
}

func exitVerdict(t kernel.Size, e runtime.Exit) (kernel.State, kernel.Reason, string) {
	said := ""
	if e.Said != "" {
		said = "; it said: " + e.Said
	}
	switch {
	case e.OOM:
		return kernel.Failed, kernel.ReasonOOM,
			fmt.Sprintf("used more memory than its limit of %s", kernel.FormatBytes(limit(t.Guarantee.Mem, t.Limit.Mem)))
	case e.Code == 0:
		return kernel.Finished, kernel.ReasonExit, "exited with 0"
	case e.Code > 128:
		return kernel.Failed, kernel.ReasonExit, fmt.Sprintf("ended by signal %d", e.Code-128)
	}
	return kernel.Failed, kernel.ReasonExit, fmt.Sprintf("exited with %d%s", e.Code, said)
}

// frameActions lists the acts that a frame of the master asks for.
type frameActions struct {
	begin  []kernel.Assignment // new here
	stop   []kernel.Assignment // known here, to be ended
	resize []kernel.Assignment // known here, and their sizes may be others
	forget []kernel.InstanceID // known here, to be ended and not reported any more than needed
}

// decideFrame compares a frame with the instances there are. All answers are in the order of ids.
func decideFrame(have map[kernel.InstanceID]bool, d *kernel.Down) frameActions {
	var a frameActions
	named := make(map[kernel.InstanceID]bool, len(d.Assignments))
	for _, g := range d.Assignments {
		if named[g.ID] {
			continue
		}
		named[g.ID] = true
		if !have[g.ID] {
			a.begin = append(a.begin, g)
		} else if g.Goal == kernel.GoalStop {
			a.stop = append(a.stop, g)
		} else {
			a.resize = append(a.resize, g)
		}
	}
	if d.Sync {
		for id := range have {
			if !named[id] {
				a.forget = append(a.forget, id)
			}
		}
	}
	for _, id := range d.Drop {
		if have[id] && !slices.Contains(a.forget, id) {
			a.forget = append(a.forget, id)
		}
	}
	byID := func(a, b kernel.Assignment) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(a.begin, byID)
	slices.SortFunc(a.stop, byID)
	slices.SortFunc(a.resize, byID)
	slices.Sort(a.forget)
	return a
}
