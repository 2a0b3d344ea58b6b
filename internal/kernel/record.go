package kernel

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"
)

// Record is an Instance, packed: a datacenter has a million of them. It is immutable and shared by all who know of the
// instance; what changes is another Record. What is decided by most often is at hand, the rest is unpacked by
// Assignment, Statuses and Instance.
type Record struct {
	*Origin
	*Host
	// two bytes for each task, see Task and Checks; the id; when it was placed; assignmentFlags; and the rest, see pack
	data    string
	started int64 // when the first task's process started; noTime: not known
	idLen   uint16
	tasks   uint8
	flags   uint8
}

// Origin holds what all instances of a spec share.
type Origin struct {
	Spec      SpecID
	Framework string
	Owner     string
	Version   string
	Tasks     []TaskName
}

// TaskName is a task's name in its instance, and the suffix of its id.
type TaskName struct{ Name, Suffix string }

// Host holds what all instances on a machine share, for as long as it lasts.
type Host struct {
	Agent    AgentID
	Hostname string
	Away     time.Time // since when the machine has been unreachable; zero: it is not
}

// Origin returns what the spec's instances share.
func (s *Spec) Origin() *Origin {
	o := &Origin{Spec: s.ID, Framework: s.Framework, Owner: s.Owner, Version: s.Version,
		Tasks: make([]TaskName, len(s.Tasks))}
	for k := range s.Tasks {
		o.Tasks[k] = TaskName{s.Tasks[k].Name, s.Tasks[k].Suffix}
	}
	return o
}

// The flags of a record.
const (
	recordKnown = 1 << iota
	recordRemoved
)

// What stands beside a task's state.
const (
	taskHealthy = 0x80
	taskFailing = 0x40 // a check says that it does not work
)

// ChecksCounted is the most checks that Record.Checks tells.
const ChecksCounted = math.MaxUint8

const noTime = math.MinInt64 // a zero time

// NewRecord packs an instance that was placed. Tasks of which nothing was reported are Staging; statuses may be fewer
// than tasks.
func NewRecord(of *Origin, at *Host, g *Assignment, statuses []Status, known bool) *Record {
	r := &Record{Origin: of, Host: at}
	if known {
		r.flags = recordKnown
	}
	return r.pack(g, statuses)
}

// Record packs an instance by itself, for whoever has few.
func (i *Instance) Record() *Record {
	of := &Origin{Spec: i.Spec, Framework: i.Framework, Owner: i.Owner, Version: i.Version}
	for k := range i.Statuses {
		of.Tasks = append(of.Tasks, TaskName{Suffix: string(i.Statuses[k].Task[min(len(i.ID), len(i.Statuses[k].Task)):])})
	}
	r := NewRecord(of, &Host{Agent: i.Agent, Hostname: i.Hostname, Away: i.Away}, &i.Assignment, i.Statuses, i.Known)
	if i.Removed {
		r.flags |= recordRemoved
	}
	return r
}

// ID is the instance's id.
func (r *Record) ID() InstanceID { return InstanceID(r.data[2*int(r.tasks):][:r.idLen]) }

// Known is Instance.Known.
func (r *Record) Known() bool { return r.flags&recordKnown != 0 }

// Removed is Instance.Removed.
func (r *Record) Removed() bool { return r.flags&recordRemoved != 0 }

// Goal is Assignment.Goal.
func (r *Record) Goal() Goal {
	if r.assignmentFlags()&hasStop != 0 {
		return GoalStop
	}
	return GoalRun
}

// Len counts its tasks.
func (r *Record) Len() int { return int(r.tasks) }

// Task is the state of a task, and whether it is healthy.
func (r *Record) Task(k int) (State, bool) {
	b := r.data[2*k]
	return State(b &^ (taskHealthy | taskFailing)), b&taskHealthy != 0
}

// Checks counts the checks of a task of which there is word, up to ChecksCounted, and tells whether one of them says
// that it does not work.
func (r *Record) Checks(k int) (n int, failing bool) {
	return int(r.data[2*k+1]), r.data[2*k]&taskFailing != 0
}

// TaskID is the id of a task.
func (r *Record) TaskID(k int) TaskID { return TaskID(string(r.ID()) + r.Tasks[k].Suffix) }

// Find is the index of a task, -1 if there is no such task.
func (r *Record) Find(id TaskID) int {
	suffix, ok := strings.CutPrefix(string(id), string(r.ID()))
	if ok {
		for k := range r.Tasks {
			if r.Tasks[k].Suffix == suffix {
				return k
			}
		}
	}
	return -1
}

// State is Instance.State.
func (r *Record) State() State {
	return sumStates(r.Len(), func(k int) State {
		state, _ := r.Task(k)
		return state
	})
}

// Healthy is Instance.Healthy.
func (r *Record) Healthy() bool {
	for k := range r.Len() {
		if _, healthy := r.Task(k); !healthy {
			return false
		}
	}
	return r.Len() > 0
}

// Started returns the time at which the first task's process started; zero: it is not known.
func (r *Record) Started() time.Time { return unpackTime(r.started) }

// Placed is Assignment.Placed.
func (r *Record) Placed() time.Time {
	return unpackTime(int64(binary.LittleEndian.Uint64([]byte(r.data[r.rest()-9:][:8]))))
}

// rest is the offset of the packed part, after the flags of the instance.
func (r *Record) rest() int { return 2*int(r.tasks) + int(r.idLen) + 9 }

func (r *Record) assignmentFlags() byte { return r.data[r.rest()-1] }

// Report is the record with other statuses.
func (r *Record) Report(statuses []Status) *Record {
	g := r.Assignment()
	return r.pack(&g, statuses)
}

// Reassign is the record with another goal, or other sizes.
func (r *Record) Reassign(g *Assignment) *Record { return r.pack(g, r.Statuses()) }

// At is the record on a machine of which something else holds.
func (r *Record) At(at *Host, known bool) *Record {
	n := *r
	n.Host = at
	if n.flags &^= recordKnown; known {
		n.flags |= recordKnown
	}
	return &n
}

// Remove is the record of an instance that is no more.
func (r *Record) Remove() *Record {
	n := *r
	n.flags |= recordRemoved
	return &n
}

// What a status has.
const (
	statusReason = 1 << iota
	statusMessage
	statusExit
	statusTime
	statusStarted
	statusPID
	statusHealth
)

// What a check's standing has.
const (
	healthKnown = 1 << iota
	healthAlive
	healthFailures
	healthFirst
	healthGood
	healthBad
	healthCause
)

// packer writes what is packed. What a thing has is said by flags in a byte before it.
type packer struct {
	b      []byte
	placed int64 // from which times are told
}

// flags begins a thing, and returns what notes that it has something.
func (p *packer) flags() (has func(is bool, flag byte) bool) {
	at := len(p.b)
	p.b = append(p.b, 0)
	return func(is bool, flag byte) bool {
		if is {
			p.b[at] |= flag
		}
		return is
	}
}

func (p *packer) text(t string)  { p.b = appendText(p.b, t) }
func (p *packer) number(n int64) { p.b = binary.AppendVarint(p.b, n) }
func (p *packer) count(n uint64) { p.b = binary.AppendUvarint(p.b, n) }

// moment notes a time, if there is one.
func (p *packer) moment(has func(bool, byte) bool, t time.Time, flag byte) {
	if has(!t.IsZero(), flag) {
		p.number(packTime(t) - p.placed)
	}
}

// pack is a record like r of this instance and these statuses. Times are told from the instance's placement on.
func (r *Record) pack(g *Assignment, statuses []Status) *Record {
	n := *r
	n.idLen, n.tasks, n.started = uint16(len(g.ID)), uint8(len(statuses)), noTime
	if len(statuses) > 0 {
		n.started = packTime(statuses[0].Started)
	}
	p := &packer{b: make([]byte, 0, 192), placed: packTime(g.Placed)}
	for k := range statuses {
		s := byte(statuses[k].State)
		if statuses[k].Healthy() {
			s |= taskHealthy
		}
		if slices.ContainsFunc(statuses[k].Health, func(h Health) bool { return h.Known && !h.Alive }) {
			s |= taskFailing
		}
		p.b = append(p.b, s, byte(min(len(statuses[k].Health), ChecksCounted)))
	}
	p.b = append(p.b, g.ID...)
	p.b = binary.LittleEndian.AppendUint64(p.b, uint64(p.placed))
	p.b = appendAssignment(append(p.b, assignmentFlags(g)), g)
	for k := range statuses {
		p.status(&statuses[k])
	}
	n.data = string(p.b)
	return &n
}

func (p *packer) status(s *Status) {
	has := p.flags()
	p.count(s.Seq)
	if has(s.Reason != "", statusReason) {
		p.text(string(s.Reason))
	}
	if has(s.Message != "", statusMessage) {
		p.text(s.Message)
	}
	if has(s.Exit != nil, statusExit) {
		p.number(int64(*s.Exit))
	}
	p.moment(has, s.Time, statusTime)
	p.moment(has, s.Started, statusStarted)
	if has(s.PID != 0, statusPID) {
		p.number(int64(s.PID))
	}
	if has(s.Health != nil, statusHealth) {
		p.count(uint64(len(s.Health)))
		for k := range s.Health {
			p.health(&s.Health[k])
		}
	}
}

func (p *packer) health(h *Health) {
	has := p.flags()
	has(h.Known, healthKnown)
	has(h.Alive, healthAlive)
	if has(h.Failures != 0, healthFailures) {
		p.number(int64(h.Failures))
	}
	p.moment(has, h.First, healthFirst)
	p.moment(has, h.LastGood, healthGood)
	p.moment(has, h.LastBad, healthBad)
	if has(h.LastCause != "", healthCause) {
		p.text(h.LastCause)
	}
}

// Assignment is the instance as it was placed.
func (r *Record) Assignment() Assignment {
	g, _ := r.unpackAssignment()
	return g
}

func (r *Record) unpackAssignment() (Assignment, *unpacker) {
	u := &unpacker{rest: r.data[r.rest():]}
	g := Assignment{ID: r.ID(), Spec: r.Spec, Placed: r.Placed()}
	u.assignment(r.assignmentFlags(), &g)
	return g, u
}

// Statuses is the latest status of each task. It is the caller's.
func (r *Record) Statuses() []Status {
	_, out := r.unpack()
	return out
}

func (r *Record) unpack() (Assignment, []Status) {
	g, u := r.unpackAssignment()
	if r.tasks == 0 {
		return g, nil
	}
	out := make([]Status, r.tasks)
	for k := range out {
		s := &out[k]
		s.Instance = g.ID
		if k < len(r.Tasks) {
			s.Task = r.TaskID(k)
		}
		s.State, _ = r.Task(k)
		u.status(s, packTime(g.Placed))
	}
	return g, out
}

// moment is a time that was told from another one on, zero if it was not.
func (r *unpacker) moment(has bool, from int64) time.Time {
	if !has {
		return time.Time{}
	}
	return unpackTime(from + r.signed())
}

func (r *unpacker) status(s *Status, placed int64) {
	has := r.take(1)[0]
	s.Seq = r.number()
	if has&statusReason != 0 {
		s.Reason = Reason(r.text())
	}
	if has&statusMessage != 0 {
		s.Message = r.text()
	}
	if has&statusExit != 0 {
		s.Exit = new(int(r.signed()))
	}
	s.Time = r.moment(has&statusTime != 0, placed)
	s.Started = r.moment(has&statusStarted != 0, placed)
	if has&statusPID != 0 {
		s.PID = int(r.signed())
	}
	if has&statusHealth == 0 {
		return
	}
	s.Health = make([]Health, r.count())
	for k := range s.Health {
		h, has := &s.Health[k], r.take(1)[0]
		h.Known, h.Alive = has&healthKnown != 0, has&healthAlive != 0
		if has&healthFailures != 0 {
			h.Failures = int(r.signed())
		}
		h.First = r.moment(has&healthFirst != 0, placed)
		h.LastGood = r.moment(has&healthGood != 0, placed)
		h.LastBad = r.moment(has&healthBad != 0, placed)
		if has&healthCause != 0 {
			h.LastCause = r.text()
		}
	}
}

// Instance unpacks the record.
func (r *Record) Instance() Instance {
	g, statuses := r.unpack()
	return Instance{Assignment: g, Framework: r.Framework, Owner: r.Owner, Version: r.Version, Agent: r.Agent,
		Hostname: r.Hostname,
		Statuses: statuses, Removed: r.Removed(), Away: r.Away, Known: r.Known()}
}

// packTime is nanoseconds since 1970. What is before 1678 or after 2261 is no clock's time, and becomes the last that
// there is.
func packTime(t time.Time) int64 {
	switch year := t.Year(); {
	case t.IsZero():
		return noTime
	case year < 1678 || year > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

func unpackTime(n int64) time.Time {
	if n == noTime {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
