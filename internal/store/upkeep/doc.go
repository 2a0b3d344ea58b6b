// Package upkeep keeps room in the store. etcd refuses every write, and the lease that a leader needs, once its
// database has reached a quota, and it does not come back by itself: a datacenter that let it come so far would have no
// control plane any more, for a reason that only the control plane can remove.
//
// # What it guarantees
//
// A Keeper looks at the store's status again and again. From [TightPercent] of the quota on it raises an alarm; from
// [FullPercent] on [Keeper.Admit] refuses what people ask for and says what they can delete, while deletes and the
// leader's own writes go on in what is left. Below that by a tenth of the quota it admits again.
//
// While it is full, history is dropped at every look, so that a delete counts at once.
//
// Space that is free inside of the database counts against the quota too, so the Keeper has it returned (Reclaim): at
// the start, before the first election, when a good part of the database is free; later only when the database is
// about to reach its quota or has, since the member stands still meanwhile and a leader may lose its lease by it.
//
// # Who owns what
//
// The Keeper owns when Reclaim is called. A store that others keep as well (an external quorum) is never reclaimed:
// its alarm says that its operators have to.
//
// # How it fails
//
// A store that does not answer is no news: the last word stands, and the store's own health tells. A Reclaim that
// fails or does not help is tried again after [ReclaimPause].
package upkeep
