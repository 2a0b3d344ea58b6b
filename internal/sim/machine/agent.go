package machine

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/sim/timeline"
)

// Times of the stub agents.
const (
	heartbeat     = time.Second
	redialMin     = 300 * time.Millisecond
	redialMax     = 2 * time.Second
	repeatEnded   = 3 * time.Second // a terminal status that was not acknowledged
	readoptAfter  = 400 * time.Millisecond
	waitForPort   = 500 * time.Millisecond
	exitedSIGKILL = 137
	hostPorts     = 10 // that are given out on a machine
)

// FixedPorts is the number of a machine's host ports, the first ones, that specs ask for by number.
const FixedPorts = 3

// Agent is a stub of one machine: its agent's process, its disk, and the containers that outlive the process. It speaks
// the frames of kernel and keeps to their contract.
type Agent struct {
	timeline.Actor
	w    *Env
	Name string
	ID   kernel.AgentID
	Info kernel.Agent

	// The machine.
	On         bool // powered
	Boot       int
	Containers []*Container
	nextPID    int
	Sick       bool   // checks of its tasks fail
	Foreign    uint16 // host port that somebody else listens on
	Cut        bool   // off the network
	Gone       bool   // it never comes back
	Removed    bool   // it is no member any more

	// On its disk.
	seen      int64 // highest leader epoch
	Instances []*Local
	Endpoints map[kernel.TaskID]Endpoint
	version   uint64 // of endpoints, under seen; zero: none
	filling   bool   // endpoints come in parts

	// In its process.
	Up          bool
	incarnation int
	Link        *Link
	upSeq       uint64
	applied     uint64
	spoke       time.Duration
	specs       []kernel.Spec // sent in this session
}

// Container is ground truth: a process of a task on a machine.
type Container struct {
	Task    kernel.TaskID
	Group   kernel.InstanceID
	ports   []uint16
	PID     int
	Boot    int
	Started time.Time
	code    int
	Ended   bool
}

// Endpoint tells an agent how to connect somebody to a task.
type Endpoint struct {
	Ready   bool
	Machine netip.Addr
}

// Local is an instance as the agent keeps it on disk.
type Local struct {
	kernel.Assignment
	spec    *kernel.Spec
	tasks   []kernel.Status
	acked   []bool
	Dropped bool // to be ended and forgotten
	killing bool // in this process
}

// New returns machine number n, switched off.
func New(w *Env, n int) *Agent {
	a := &Agent{w: w, Name: fmt.Sprintf("a%02d", n), ID: kernel.AgentID(fmt.Sprintf("a%02d", n)), nextPID: 1000}
	a.Info = kernel.Agent{
		ID: a.ID, Hostname: a.Name + ".example", Address: netip.AddrFrom4([4]byte{192, byte(n >> 8), 2, byte(n + 1)}),
		Attributes: map[string]string{"rack": fmt.Sprint("r", n%5)}, Region: "r", Zone: fmt.Sprint("z", n%3),
		Total:   kernel.Resources{MilliCPU: 4000 / w.Scarce, Mem: 8 * kernel.GiB / w.Scarce, Disk: 50 * kernel.GiB},
		Ports:   kernel.PortRange{First: 31000, Last: 31000 + hostPorts - 1},
		Version: "sim", Cgroup: "v2",
	}
	if n%8 == 0 {
		a.Foreign = a.Info.Ports.First + FixedPorts + uint16(n%(hostPorts-FixedPorts))
	}
	return a
}

// Note tells what happened to the machine.
func (a *Agent) Note(what, which string, x, y int64) { a.w.Note(a.Name, what, which, x, y) }

// send sends one frame of the session, if there is one.
func (a *Agent) send(f kernel.Up) {
	if a.Link == nil {
		return
	}
	a.upSeq++
	f.Seq, f.Applied = a.upSeq, a.applied
	a.spoke = a.w.Now
	a.Link.sendUp(f)
}

func (a *Agent) local(id kernel.InstanceID) *Local {
	for _, g := range a.Instances {
		if g.ID == id {
			return g
		}
	}
	return nil
}

// forgetIfDone takes an instance off the disk once all its tasks ended and nobody needs to hear of it any more.
func (a *Agent) forgetIfDone(g *Local) {
	for i := range g.tasks {
		if !g.tasks[i].State.Terminal() || !g.acked[i] && !g.Dropped {
			return
		}
	}
	for i, o := range a.Instances {
		if o == g {
			a.Instances = append(a.Instances[:i], a.Instances[i+1:]...)
			break
		}
	}
	for i := 0; i < len(a.Containers); {
		if c := a.Containers[i]; c.Group == g.ID {
			a.Containers = append(a.Containers[:i], a.Containers[i+1:]...)
			continue
		}
		i++
	}
	a.Note("forgets", string(g.ID), 0, 0)
}

func (a *Agent) container(task kernel.TaskID) *Container {
	for _, c := range a.Containers {
		if c.Task == task {
			return c
		}
	}
	return nil
}
