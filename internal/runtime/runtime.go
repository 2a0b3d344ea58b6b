package runtime

import (
	"context"
	"io"
	"time"

	"github.com/marinaos/marina/internal/kernel"
)

// The labels every container of an agent carries, so that its truth can be told without the agent's checkpoints.
const (
	LabelGroup = "marina.group" // kernel.InstanceID
	LabelTask  = "marina.task"  // kernel.TaskID
	LabelSpec  = "marina.spec"  // kernel.SpecID
	LabelBoot  = "marina.boot"  // boot id of the machine when it was made
	LabelAgent = "marina.agent" // kernel.AgentID
)

// SandboxTarget is the path of a task's sandbox inside its container.
const SandboxTarget = "/mnt/mesos/sandbox"

// Runtime makes containers. runtime/containerd is the real one. Its containers outlive this process: whatever it made
// before is found again by Containers. All methods are safe for concurrent use; calls for one container are not made
// concurrently, but Exec, Stats and Layer may be at any time. Errors are of errdefs kinds; ErrNotFound for an image means that
// neither the datacenter's store nor the registry named by the reference has it.
type Runtime interface {
	// Pull makes an image present and unpacked. It is quick when it already is, unless fresh asks the source again.
	Pull(ctx context.Context, ref string, fresh bool) error

	// Create makes a container and does not start it. A container with the same ID is an ErrAlreadyExists.
	Create(ctx context.Context, c Container) error

	// Start starts a created container's process and returns its pid and start time.
	Start(ctx context.Context, id string) (Process, error)

	// Signal sends a signal to the container's first process; an ended one is not an error.
	Signal(ctx context.Context, id string, signal int) error

	// Remove kills what still runs and removes the container with all it had: process, filesystem, cgroup, mounts.
	// Removing what does not exist is not an error.
	Remove(ctx context.Context, id string) error

	// Containers lists all containers made here, running or not, including those of earlier agent processes.
	Containers(ctx context.Context) ([]Found, error)

	// Exits delivers one Exit for each container that ends, also for those that ended while nobody was listening and
	// have not been removed; duplicates are possible. It ends with ctx.
	Exits(ctx context.Context) <-chan Exit

	// Exec runs a further process in a running container, with the container's environment, directory and user, and
	// returns when it has ended, with its exit code. When ctx ends, the process is killed and the error is ctx's.
	Exec(ctx context.Context, id string, e Exec) (code int, err error)

	// Stats reads what a container uses. It is quick.
	Stats(ctx context.Context, id string) (Stats, error)

	// Layer measures a container's own layer of the filesystem, in bytes: zero if it has none or that cannot be told. All of
	// the layer is walked, so it is asked now and then only.
	Layer(ctx context.Context, id string) (bytes int64, err error)

	// Update changes the limits of a container that was made. A memory limit below what the container uses and cannot give
	// back is errdefs.ErrFailedPrecondition, with nothing lost: it can be tried again. An ended container is not an error.
	Update(ctx context.Context, id string, l Limits) error

	// IDs is the range of the machine's ids that containers in networks of their own share. Those above it, up to the
	// highest id there is, are free to be given out as Container.IDs. A Count of zero: this runtime has no user
	// namespaces.
	IDs() kernel.IDRange

	Storage
}

// Storage keeps what outlives containers, and what must not outlive them. What it mounts is the machine's: it stays
// when this process ends. Every method can be repeated; calls for one place are not made concurrently.
type Storage interface {
	// MountVolume has the filesystem that is kept in the file image be at the directory at. It is made if there is none,
	// repaired if it was not left in order, and grown if it is smaller than size; nothing makes it smaller. One that is
	// beyond repair is errdefs.ErrDataLoss, and the error says what the repair said.
	MountVolume(ctx context.Context, image, at string, size int64) error

	// MountMemory has an empty directory in memory be at the directory at, of at most size bytes, entered by owner only
	// and never swapped out where the kernel can promise that. One that is there already is left as it is.
	MountMemory(ctx context.Context, at string, size int64, owner uint32) error

	// Unmount takes away what is mounted at the directory, and the directory: the file of a volume stays, memory is gone.
	// What is not mounted is not an error.
	Unmount(ctx context.Context, at string) error

	// Mounted lists what is mounted below a directory.
	Mounted(ctx context.Context, below string) ([]string, error)
}

// Container describes a container to make, complete: the agent has resolved everything.
type Container struct {
	ID       string            // see ContainerID
	Labels   map[string]string // handed back by Containers
	Cgroup   string            // path below the datacenter's cgroup: "group/task"
	Image    string            // empty: the machine's own programs, read-only
	Shell    string
	Argv     []string
	User     string
	TTY      bool
	Env      []string // "NAME=value"
	Hostname string   //
	NetNS    string   // path of the network namespace; empty: the machine's
	Binds    []Bind   // sandbox, resolv.conf, hosts, volumes
	Dir      string   // working directory if not the image's; the sandbox for tasks without an image
	Stdout   string   // files that get the output, appended to
	Stderr   string   //
	MilliCPU int64    // share under contention: the guarantee
	CPULimit int64    // thousandths of a core; 0: none
	MemLimit int64    // bytes; 0: none
	PIDLimit int64    // 0: the runtime's default

	Class  kernel.Class    // what kind of container
	IDs    *kernel.IDRange // its own ids on the machine; nil: those that all share
	UserNS string          // path of the user namespace that NetNS belongs to, with these IDs; empty: one is made
}

// Limits bounds what a container may use; the fields are as those of Container.
type Limits struct {
	MilliCPU, CPULimit, MemLimit int64
}

// Bind is one bind mount.
type Bind struct {
	Source, Target string
	ReadOnly       bool
	Raw            bool // owners on disk are the machine's ids, not the container's
}

// Process is a started container's first process.
type Process struct {
	PID     int
	Started time.Time
}

// Found is a container that exists.
type Found struct {
	ID      string
	Labels  map[string]string
	Running bool
	Process Process
	Exit    *Exit // set if it ended and its exit is known
}

// Exit is the end of a container's first process.
type Exit struct {
	ID   string
	Code int // 128 + signal when signalled
	OOM  bool
	Time time.Time
	Said string // last words, of programs that Marina brings; the agent fills it in
}

// Exec is a further process in a container.
type Exec struct {
	Argv           []string
	Env            []string // added to the container's own
	TTY            bool
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size // with TTY; what is in it before the start is the terminal's size from the start on
}

// Size is a terminal's.
type Size struct{ Columns, Rows uint16 }

// Stats measures what a container uses.
type Stats struct {
	Mem      int64         // bytes, page cache that can be dropped not counted
	CPU      time.Duration // since it started
	PIDs     int64
	Throttle time.Duration // time spent throttled by its CPU limit
}
