// Package memory is the in-memory twin of the etcd store: the same contract, held by the same suite, for tests and the
// simulator. Nothing outlives the process.
//
// It has no goroutine and reads no clock, so it works inside synctest and under a deterministic simulator, where one
// goroutine calls everything. A leader's lease never runs out by itself: [Store.Expire] says when.
//
// Faults are told to it: [Store.LoseReply] makes a commit's outcome unknown, [Store.CompactUnderWatch] and
// [Store.EndWatches] take a watch's history away, [Store.Expire] lets a lease run out under a leader that does not notice,
// which is what a paused leader is. Deleting a leader's row by a transaction is the noticed way.
package memory
