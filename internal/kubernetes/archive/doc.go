// Package archive keeps the images that were loaded into clusters, as archives in a directory of each cluster on the
// master's disk, so that nodes that come later can be given them as well.
//
// An archive has a name, and is listed, only once it is whole and durable (package durable): no new node is given one
// that is still being received, or was cut off by a crash. What a process that ended was receiving is removed at the
// next start, and so are the directories of clusters that are none any more.
//
// Archives are bounded: so many of a cluster, so many bytes of a cluster and of all together, counted while they
// arrive, and nothing is written that would not leave the store its reserve of the disk (package disk). Refusals are
// errdefs.ErrResourceExhausted and say in numbers what there is and what can be removed.
//
// Only the leader has this directory open, and it is on this machine's disk: with several masters, archives are not
// copied yet.
package archive
