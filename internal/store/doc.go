// Package store is the datacenter's state: rows under keys, changed by guarded transactions, followed by watches,
// owned by one leader at a time. It is the contract; the children hold to it: etcd (embedded in a master, or an
// external quorum) and memory (the twin for tests and the simulator). Package storetest is the suite that both pass.
//
// # Rows and keys
//
// A row is an [Item]: a key, some bytes, the revision that created it and the revision that last changed it. Keys are
// built by [Key] out of escaped segments, so that the prefix of one table can never match a key of another. [Table]
// gives rows a Go type with a JSON codec; a row that does not decode is reported by itself and hides no other.
//
// # Transactions
//
// [Store.Commit] is the only way to change anything. All guards of a [Txn] hold and all of its operations happen, at
// one new revision, or nothing happens. The answer has four kinds, and callers must tell them apart:
//
//   - nil: the transaction is durable on a quorum;
//   - [ErrConflict]: a guard failed, nothing happened: read again and decide again;
//   - [ErrFenced]: the guard that failed is a leadership's fence, nothing happened: the writer is not the leader any
//     more and must stop acting;
//   - [ErrUnknownOutcome]: the transaction may have happened or may still happen. The store never repeats it. Only a
//     later read can tell, and a repeat is safe only under a guard that fails when the first attempt took effect.
//
// Any other error means that nothing happened: the transaction breaks a limit (errdefs.ErrInvalidArgument), the
// context was over before anything was sent, or the quorum refused it. Every limit has a name here, and a transaction
// over one is refused whole: nothing is ever split.
//
// Reads ([Store.Get], [Store.Snapshot]) are linearizable: they see every transaction that was acknowledged before
// they began.
//
// # Watching
//
// [Store.Watch] gives a consistent snapshot and then every later change, in order, each once, a transaction's changes
// together in one [Batch]. There is no gap between the two and no way to lose a change silently: when the history
// that a watch needs is compacted away, or its reader falls more than [MaxWatchBacklog] behind, the watch ends with
// [ErrWatchAgain], and the reader starts over with a new snapshot.
//
// # Leadership
//
// [Store.Campaign] blocks until the caller leads an election. A leader owns a row (see [LeaderKey]) that goes away
// when it stops renewing its lease. The row's create revision is the leader's epoch, which only grows from leader to
// leader. Two things follow, and a leader needs both:
//
//   - [Leadership.Context] ends as soon as the leader may have been replaced, judged by this process's monotonic
//     clock from the moment that the last successful renewal was sent. It is what stops a healthy leader's work in
//     time.
//   - [Leadership.Fence] is a guard that fails once the row is gone. It is what makes a leader that was paused past
//     its lease harmless, since no clock can: every transaction of a leader carries it. The store cannot fence
//     messages that a paused leader sends elsewhere; those carry the epoch, and receivers refuse a lower one than
//     they have seen.
//
// # Ownership
//
// The opener of a store closes it. Close ends its watches and leaderships with [ErrClosed]. Values passed to Commit
// belong to the store from then on, values it returns are shared by all readers: neither may be modified.
package store
