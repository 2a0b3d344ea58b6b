// Package testbed gives tests a real datacenter: the marina program in its own processes, containerd and runc, the
// machine's network. Stories and benchmarks are written on it.
//
// # What it guarantees
//
// A Datacenter has a state directory, ports and address ranges of its own, so that several stand on one machine beside
// whatever else is there. What it is judged by does not come from Marina: what tasks write about themselves (probe.go),
// what the kernel says of processes, mounts, links, rules, namespaces, cgroups and settings (machine.go), what clients
// saw (caller.go).
//
// Close takes the datacenter away as a person would, by `marina down --clean-state --yes`, and is an error if anything
// of it is left on the machine. A witness taken while it stood proves that the search would have found each kind of
// thing.
//
// # Who owns what
//
// A Workshop owns the programs and images, built once for a test binary. A Datacenter owns its state directory and its
// reports directory; the processes are found by a mark in their environment, which they inherit. Nothing is ended by
// name.
//
// A Member is a second machine of a datacenter: an agent in a network namespace, with its own state directory,
// containerd and tasks. The test that has it join owns it.
//
// # How it fails
//
// Waiting is Until: it looks again and again, and after its limit fails with what was last seen. A Datacenter that
// cannot be taken away is reported with everything that stays; what can be ended by the mark is ended then.
package testbed
