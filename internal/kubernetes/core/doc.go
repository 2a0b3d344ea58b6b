// Package core decides for hosted clusters, and says what they look like: pure, so that transcripts drive the same
// code as a datacenter.
//
//	the kernel: instances, reservations, queue ─> Observe... ─┐
//	a steward's word ─> Hear ─────────────────────────────────┼─> State ─> Decide ─> Decision: launch, stop, release ...
//	a row, when it is durable ────────────────────────────────┘      └───> View, Events, Alarms
//
// [State] is all clusters by name, and an agenda of which are to be settled when. A [Cluster] is its row, its members
// with what the kernel has of each, the last word of its steward, and what was asked of the kernel and refused since
// this leader began:
//
//	state.go            what is told is taken in; which cluster may be made or changed
//	decide.go           what follows for one cluster
//	report.go           what became of it
//	supply.go           which images nodes have and lack
//	view.go, answer.go  what is shown
//	balancer.go         VIPs and ports of Services of type LoadBalancer
//	trouble.go          steps that were refused, and when each is tried again
//	spec.go, version.go what control planes and nodes are made of
//	cluster.go, member.go, row.go, agenda.go, name.go   the nouns: calls run down to here
//
// # Contracts
//
// Whoever drives it keeps this order: observe; Take who is to be settled; Decide for each, carry the decision out in
// the order of its fields, and report what became of each part; note its Wake with At. Package kubernetes does, and so
// does transcript_test.go, which replays testdata/decide: commands, and what is decided.
//
// A decision says only what is to be done now. Nothing is half done: whatever was interrupted, the next decision
// compares what is there with the row again. Nothing is started because it seems missing before the kernel's view is
// complete.
//
// A State belongs to one goroutine, or to whoever holds its lock. What concerns only when to settle (Touch, Due, Take,
// At, Next) reads and writes nothing that views are made from. Views are values of their own.
package core
