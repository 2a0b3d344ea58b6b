// Package machine reads what Linux says of the machine we run on, and changes a few settings of it.
//
// Facts are read from /proc and /sys each time they are asked for, but for the time of the boot, which the kernel moves
// with the clock. A process is told by its number together with its start time ([StartTime]): a number alone is given
// away again.
//
// Settings of the machine below /proc/sys are changed through a [Sysctls]: what a setting was is on disk before it is
// changed, so that it can be put back by whoever takes the datacenter away, after any crash. Each recorder has a file
// of its own. Settings of a network namespace or of a link of ours are nobody else's and need no recorder.
//
// [Preflight] names what is missing for a datacenter, with what to do about it. It changes nothing.
package machine
