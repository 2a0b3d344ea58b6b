// Package invariant is what must always hold in a datacenter, as code. The simulator judges every step by it, the tests
// with real processes judge the records that tasks write about themselves, and the cheap checks run in production: one
// function each, so that a simulated run and a real one are judged alike.
//
// # The catalogue
//
//	I5   UpperBound   live instances of an owner stay under its instances plus maximumOverCapacity
//	I7   Converged    once faults have ended, what runs is what was asked for, or waits with a reason
//	I8   Identities   a task has one process, whatever restarts around it
//	I10  Terminals    a task that ended stays as it ended
//	I11  Orphans      what runs is explained by an intent, or is stopped in time
//	I12  Intents      what runs had a durable intent first
//	I13  Books        guarantees never exceed a machine or a quota, at any revision of the store
//	I14  Books        a host port, address, VIP or subnet has one holder, at any revision; Ledger: and a group one machine
//	I19  Fences       nothing of an old leader has an effect
//	I41  Rights       an instance makes way only for a higher priority, of its own top-level group unless it ran on loan
//	I42  Members      a machine that was removed is gone for good; nobody waits for it, and what it kept is called lost
//
// # Views
//
// Checks look at small values of the kernel's vocabulary and never at another room's insides; bounds of policy come in
// as plain numbers. Those that need history are trackers: they are told what happened, keep what they need, and answer
// with violations at once ([Identities], [Terminals], [Intents], [Fences]) or when asked ([Ledger.Judge] after each
// revision, [Orphans.Judge] after each step). A [Ledger] is [Totals] and the placements beside them, for whoever has
// those from nowhere else. A tracker looks only at what changed since it was last asked, so that judging every step
// costs what the step did. While everything holds nothing is allocated but what is remembered.
//
// # Ownership and failure
//
// A tracker belongs to one goroutine. A check never panics and never changes what it looks at. A violation is a bug in
// the program that was judged, never a condition to handle: a test fails with it, and production stops rather than
// commit it.
//
// # Rare paths
//
// A simulation that never reaches its rare paths proves little. [Sometimes] is a list of their names: code that reaches
// one says so, and the run fails if one of them was never reached.
package invariant
