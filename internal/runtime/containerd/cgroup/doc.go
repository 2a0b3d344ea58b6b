// Package cgroup keeps the control groups of one datacenter's containers: a [Tree] below /marina-INSTANCE in every
// hierarchy that the machine has mounted, and in it a [Group] for each container.
//
// runc makes a container's group and sets what it starts with. This package does what comes after: the CPU limit once
// the task runs, other limits while it runs, what it uses, whether memory was to blame for its end, signals to all of
// it, and taking it away with whatever runs in it. A group that is gone is that of a container that has ended: setting
// a limit there is no error.
//
// cgroup v1 and v2 are used through the same code, told apart when the tree is opened. A Tree may be used by several
// goroutines; so may a Group, which is a value.
package cgroup
