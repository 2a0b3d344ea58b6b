// Package spec turns a runtime.Container into the OCI spec by which runc makes it: what its processes are, what they
// see and what they may do.
//
// Every container has namespaces of its own (pid, ipc, uts, mount, cgroup, user) and the network namespace it is given.
// [IDs] says which ids of the machine its users are. An ordinary one has Docker's default capabilities less NET_RAW and
// MKNOD, the default seccomp profile, no_new_privs, and /proc and /sys masked and read-only. A container of class node
// has all that a machine in a container needs; its rights end with its user namespace (see [IsNode]). A task without an
// image sees the machine's programs read-only, a chosen part of /etc, and runs as nobody.
//
// It reads of the machine what it needs to know (what is in /etc, which filesystems map ids) and changes nothing,
// but for [Sysfs] and [MachineRoot], which their caller undoes.
package spec
