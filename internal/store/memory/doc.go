// Package memory is the in-memory twin of the etcd store: the same contract, held by the same suite, for tests and the
// simulator. Nothing outlives the process.
//
// It has no goroutine and reads no clock, so it works inside synctest and under a deterministic simulator, where one
// goroutine calls everything. A leader's lease never expires by itself: [Store.Expire] ends it.
//
// Faults are injected by calls: [Store.LoseReply] makes a commit's outcome unknown, [Store.CompactUnderWatch] and
// [Store.EndWatches] drop a watch's history, [Store.Expire] ends a lease without the leader's notice, as for a paused
// leader. When a transaction deletes a leader's row, the leader notices.
package memory
