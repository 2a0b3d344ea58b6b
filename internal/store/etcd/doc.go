// Package etcd is the store on etcd: embedded in this process ([OpenEmbedded], the default) or an external quorum
// ([OpenExternal]). Both are the same [Store] over the same client; they differ in where the server runs.
//
// # The embedded member
//
// The server and its client meet inside the process: no client port is open, and while the member is alone no peer
// port either, so nothing unauthenticated listens. The data directory has mode 0700, belongs to one process at a time
// (a lock file names it) and has etcd's own layout under etcd/, as further members would expect.
//
// Every acknowledged transaction was fsynced to the write-ahead log of a quorum. A member that is killed at any
// moment replays the log when it starts again. When etcd cannot write or trust its log it ends the whole process with
// a fatal log line: after a failed fsync nothing in this process's memory can be acknowledged.
//
// History is compacted every [Embedded.CompactAfter], which bounds how far back a snapshot in progress or a
// disconnected watch can reach; both start over when it is gone. A database over its quota, or a filesystem without
// space, refuses writes, and leases with them, until space is freed: [Store.Status] says so. Deletes still go through;
// [Store.Reclaim] makes the space they freed available to writes. Package upkeep sees to it that it does not come so
// far, and calls Reclaim where it did.
//
// # Outcomes
//
// Every failure that is not known to be a refusal before the log is store.ErrUnknownOutcome: a timeout, a lost
// connection, a cancelled call, and also etcd's "database space exceeded", which is the answer even to the
// transaction that crossed the quota and took effect. Nothing is retried here; the client below retries only requests
// that were never sent.
//
// # Leadership
//
// A leader's row is attached to a lease of this process. One goroutine renews the lease; a timer, moved forward on
// each success to nine tenths of the lease counted from the moment the renewal was sent, ends the leadership when
// renewals stop, so before the server can end the lease; a watch on the row ends it when the row goes away for
// another reason.
package etcd
