// Package runtimetest is the conformance suite of runtime.Runtime: what an agent relies on, as tests.
// runtime/containerd and runtime/process both run it.
//
// The suite makes a runtime again in the middle of a test, as an agent that starts anew does, and expects the
// containers of the first to be there, running or ended, with their labels, pids, start times and exit codes, and so
// with what was mounted. What a runtime cannot do at all (limits, isolation) is said in Options and then not asked for.
package runtimetest
