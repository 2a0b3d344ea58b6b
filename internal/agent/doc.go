// Package agent runs, checks, checkpoints and recovers the tasks of one machine.
//
// # What it is
//
// An [Agent] is told groups by a master ([kernel.Down]), makes them real through a [Runtime] (containers) and a
// [Network] (addresses, ports, names), and reports one [kernel.Status] per task ([kernel.Up]). It never decides how
// many there should be, never starts anything again that ended, and never ends a task for its health: schedulers do. It
// works without a master for as long as it takes: tasks run, checks go on, VIPs and names follow what this machine
// knows of its own tasks.
//
// # Who owns what
//
// Each group has a goroutine ([group.run]) that owns its checkpoint and is the only one to act on its containers;
// others leave exits, acknowledgements and the wish to stop in its mailbox. Agent.mu guards which groups there are and
// what was told of them. The endpoints table has a mutex and one goroutine that gives it to the network. A session has
// a reader and a writer, and ends with its connection.
//
//	master -- frames --> session -- plans --> group (one each) -- calls --> Runtime, Network
//	                        ^                   |   ^                           |
//	                        +---- statuses -----+   +-------- exits ------------+
//
// What is decided is decided by functions of values: decideRecovery, decideFrame, verdict, nextHealth, decideSandboxes.
//
// # The life of a group
//
//	Staging   secrets are fetched, and images, at most ParallelPulls at a time
//	Starting  on disk before anything is made: a container exists only if its intent does
//	Running   volumes mounted, files written, network attached, containers made, processes started, at most ParallelStarts groups at a time; on disk
//	Killing   on disk; no new connections from this machine; a short drain; TERM; the grace; KILL
//	terminal  on disk; containers removed, network, files and volumes taken away; then told, again in each session until acknowledged
//
// The tasks of a group start together and end together. A status is on disk before anyone hears it, so that its Seq
// never goes back; a terminal one is on disk before the container is removed, since the container is the only other
// witness of how it ended, and told after, since who hears it may give its address and ports away.
//
// # What a group is given
//
// Volumes of its claim are filesystems in files below volumes/FRAMEWORK/CLAIM of the state folder. They are mounted
// while a group with the claim is here, wait between groups, grow with a later spec, and are deleted only when a master
// releases the claim, which is answered also for claims that are not here. Whoever comes back finds what is mounted;
// what is mounted for nobody is unmounted once a master has said what is assigned. The calls for one claim exclude each
// other.
//
// Files, secrets above all, are in memory of the group's own that is never on disk, neither in checkpoints nor in logs.
// (Contents that stand in a spec are in the checkpoint with it.) Secrets are asked for again now and then and replaced
// by rename, each file at once. They end with the group; a machine that starts anew asks anew. Writing makes sure that
// it writes to memory.
//
// Bundles are programs on the machine, looked up when a task starts; a session ends when there are others than it was
// told.
//
// A group with a claim, or with a node in it, has a range of user ids for itself, which follows from its address. A
// node's network belongs to a user namespace with that range. What it is granted stands in files that are changed when
// it is.
//
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
// removed. The network keeps working meanwhile. Two agents never share a folder: it is locked.
//
// # How it fails
//
// A frame of an older leader than the agent has listened to (the highest epoch is on disk), a gap in the numbers, or a
// frame that is none ends the session; the next begins with all that counts. A checkpoint that cannot be written is
// tried again, and what it would make true is not told before. While the disk is nearly full nothing is started, and
// the refusal says so; the rest goes on. A task that survives KILL is Killing with a message that begins with "stuck",
// an Error is logged, and removing it is tried until it works. Calls to the runtime are bounded in time and concern one
// group only.
package agent
