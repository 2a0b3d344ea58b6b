// Package storage is runtime.Storage on Linux: volumes and directories in memory.
//
// Volumes are ext4 in sparse files on loop devices that end with their last mount. A file has at most one device: while
// a container that is about to end still holds it, the next mount is of the same one, since two would tear the
// filesystem. Before an unused one is mounted e2fsck replays and mends it; growing is done then too, since the kernel
// lets only holders of CAP_SYS_RESOURCE grow one in use. What e2fsck cannot mend is errdefs.ErrDataLoss with its words,
// and is left as it is. Memory is tmpfs, without swap where the kernel has that (6.4).
//
// Nothing is kept beside the mounts, so every call can be repeated by whoever comes after.
package storage
