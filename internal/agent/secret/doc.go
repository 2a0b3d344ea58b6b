// Package secret gives instances their files: secrets above all, in memory of the instance's own that is never on disk,
// neither in checkpoints nor in logs. (Contents that stand in a spec are in the checkpoint with it.)
//
// What a reference stands for is asked of a [Source], when an instance starts and now and then while it runs; files are
// replaced by rename, each at once, so that a task reads the old content or the new one. Writing makes sure that it
// writes to memory: an instance whose memory is not there gets nothing. The memory ends with the instance; what is
// there for instances that are not is taken away by DropUnknown. A machine that starts anew asks anew.
package secret
