// Package agent runs, checks, checkpoints and recovers the tasks of one machine.
//
// # What it is
//
// An [Agent] is told instances by a master ([kernel.Down]), makes them real through a [Runtime] (containers) and a
// [Network] (addresses, ports, names), and reports one [kernel.Status] per task ([kernel.Up]). It never decides how
// many there should be, never starts anything again that ended, and never ends a task for its health: schedulers do. It
// works without a master for as long as it takes: tasks run, checks go on, VIPs and names follow what this machine
// knows of its own tasks.
//
// # Who owns what
//
// Each instance has a goroutine ([instance.run]) that owns its checkpoint and is the only one to act on its containers;
// others leave exits, acknowledgements and the wish to stop in its mailbox. Agent.mu guards which instances there are
// and what was told of them. What an agent keeps beside them is in parts, each with a lock of its own:
//
//	checkpoint  the state directory: what is on disk, whole or set aside
//	session     the way to a master: frames in their order, an outbox
//	endpoint    this machine's copy of the datacenter's endpoints, which the network follows
//	sandbox     what tasks write: files and output
//	volume      the volumes of reservations, and their release
//	secret      files of instances, in memory
//	check       asks tasks whether they work
//	node        what a Kubernetes node is told of itself
//	api         what users are answered of tasks
//
// locks, naming and retry are what those share. A part knows nothing of agents and groups; it is given values and asks
// back through functions. What is left here: who the agent is (run.go), what frames ask for (frames.go), the life of
// instances (instance.go, start.go, finish.go, resize.go), what is looked after now and then (keeper.go), and the
// containers that specs come to (env.go, node.go, place.go).
//
//	master -- frames --> session -- plans --> instance (one each) -- stages --> parts, Runtime, Network
//	                        ^                   |   ^                           |
//	                        +---- statuses -----+   +-------- exits ------------+
//
// What is decided is decided by functions of values: decideRecovery, decideFrame, verdict, check.Next.
//
// # The life of an instance
//
//	Staging   secrets are fetched, and images, at most ParallelPulls at a time
//	Starting  on disk before anything is made: a container exists only if its intent does
//	Running   all is made and the processes are started, at most ParallelStarts instances at a time; on disk
//	Killing   on disk; no new connections from this machine; a short drain; TERM; the grace; KILL
//	terminal  on disk; all is taken away; then told, again in each session until acknowledged
//
// The tasks of an instance start together and end together. A status is on disk before anyone hears it, so that its Seq
// never goes back; a terminal one is on disk before the container is removed, since the container is the only other
// witness of how it ended, and told after, since who hears it may give its address and ports away.
//
// What an instance is given is a list of stages (stage.go, stages.go): what is fetched before it counts as starting
// (admission, secrets, images), and what is made for it (volumes, files, the connection to the network, sandboxes,
// containers). They are prepared in order and undone in reverse. Each goes by the instance's record alone and finds
// what it made before, whole, in part or not at all, since an agent can be killed within any of them; a test kills it
// around each. Something new for instances is one more stage in its place.
//
// Files, secrets above all, are in memory of the instance's own that is never on disk. Bundles are programs on the
// machine, looked up when a task starts; a session ends when there are others than it was told. An instance with a
// reservation, or with a node in it, has a range of user ids for itself, which follows from its address. A node's
// network belongs to a user namespace with that range. What it is granted stands in files that are changed when it is.
// Sizes that a master changes are on disk first, then in the runtime, then told to the node; a later agent does it
// again.
//
// # After a crash
//
// The checkpoints and the runtime's containers are compared: what runs is adopted with its pid and start time and no
// new status; what ended meanwhile is reported with its exit; what vanished is Failed, or Lost if the machine started
// anew (a pid is one process only together with its start time and the boot id); a start that was cut off goes on. A
// damaged checkpoint is told from a good one by length and checksum, named in the log, set aside, and missed by no
// other; its containers carry their names as labels and are kept until a master says what is assigned, then adopted or
// removed. The network keeps working meanwhile. Two agents never share a directory: it is locked.
//
// # How it fails
//
// A frame of an older leader than the agent has listened to (the highest epoch is on disk), a gap in the numbers, or a
// frame that is none ends the session; the next begins with all that counts. A checkpoint that cannot be written is
// tried again, and what it would make true is not told before. While the disk is nearly full nothing is started, and
// the refusal says so; the rest goes on. A task that survives KILL is Killing with a message that begins with "stuck",
// an Error is logged, and removing it is tried until it works. Calls to the runtime are bounded in time and concern one
// instance only.
package agent
