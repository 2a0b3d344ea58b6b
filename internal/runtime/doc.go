// Package runtime states what makes containers, and what keeps files for them, on one machine: the contract between the
// agent, which decides, and what carries it out. It is types and
// interfaces, and [Bounded], which gives calls a limit of time.
//
// Who implements [Runtime] guarantees that containers and mounts outlive its process and are found again by the next
// one, that every call can be repeated after a crash at any point, and that errors are of errdefs kinds.
// runtime/containerd is the real one; runtime/process makes plain processes of the machine, for tests that need no
// root; both pass the suite in runtime/runtimetest, which is where this contract is precise.
//
// The containerd library belongs to this room.
package runtime
