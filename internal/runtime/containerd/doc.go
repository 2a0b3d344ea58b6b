// Package containerd is the real runtime.Runtime: containers by containerd and runc, built from bundle/runtime.
//
// # Who owns what
//
// An agent has a containerd of its own: own configuration, state, socket, cgroup and containerd namespace, all named by
// the datacenter's instance; an existing containerd or Docker on the machine is neither asked nor touched. (With
// Config.Socket it uses somebody else's, and supervises nothing.) Everything made here lies below Config.State (images
// and snapshots), Config.Run (sockets, bundles, mounts), the cgroup /marina-INSTANCE and containerd's namespace of the
// same name. RemoveAll takes all of it away.
//
// # What outlives what
//
//	agent  ->  containerd  ->  shim (one a container)  ->  the task's processes
//
// Each arrow is "starts", none is "dies with". Run starts containerd in a session of its own, finds one that is already
// there by its command line, and replaces one of another version or configuration; while it is away containers go on
// and calls wait for it up to their limit. The task's output is written to files by a program of the bundle,
// marina-log, which its shim starts: rotate them by copying and truncating. Only Down and RemoveAll end containerd.
//
// What is known about a container is kept by containerd: labels that say whose it is, the shim's memory of how it
// ended, and its cgroup's counters, which say whether memory was to blame. So Containers and Exits answer the same
// after a restart of the agent, of containerd, or of both. An end is reported when it happens by containerd's events,
// and all containers are looked at again whenever the stream of events had to be set up anew: late, never lost,
// sometimes twice.
//
// # What a container may do
//
// It has namespaces of its own (pid, ipc, uts, mount, cgroup, user) and the network namespace it is given. Its root is
// Config.IDBase on the machine, without rights there. It has Docker's default capabilities less NET_RAW and MKNOD, the
// default seccomp profile, no_new_privs, and /proc and /sys masked and read-only. In the machine's network (NetNS
// empty) there is no user namespace, since such tasks listen on the machine's low ports; the rest holds. Directories
// bound into it keep the container's ids on disk by id-mapped mounts, unless they are Raw. A task without an image sees
// the machine's programs read-only, a chosen part of /etc, and runs as nobody.
//
// A container of class node has all that a machine in a container needs, and no rights on the machine, for one reason:
// its user namespace owns its network, its mounts and the instances below its own. So it has all capabilities, no
// filter of system calls, nothing masked, /sys and its control groups to write, and of those groups the directory, the
// lists of processes and nothing else: its limits stay ours. Both namespaces are joined by path. The maps stand beside
// the path, since containerd lets nobody into the container's directory otherwise; runc compares them.
//
// Where the machine has no user namespaces (Config.NoUserNamespaces), ids in containers are the machine's.
// Capabilities, system calls and masks of ordinary containers stay as they are. A node's root is then the machine's,
// with all rights: nobody but those who run the machine may have privileged pods on such a node.
//
// # Its parts
//
// Each is a package with a state of its own, or none: [daemon] keeps containerd's process, [image] makes images
// present, [spec] says what a container is made of, [cgroup] limits, measures and ends what runs, [storage] mounts
// volumes. This package has what containerd knows: containers, their processes and their ends.
//
// cgroup v1 and v2 are used through the same code; v2 is not yet covered by a run of the tests on a machine that has
// it.
//
// # How it fails
//
// Every call has a limit. A container whose shim or process does not answer gives ErrStuck for itself and no other; its
// processes are killed through the cgroup, and Remove can be repeated. A containerd that ends is started again, with
// growing pauses if it keeps ending. A shim that dies takes its container with it: that is an end by KILL. Programs
// with known ways out of a container are refused by New.
package containerd
