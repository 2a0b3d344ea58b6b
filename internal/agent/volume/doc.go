// Package volume keeps the volumes of reservations on one machine: filesystems in files, below volumes/FRAMEWORK/CLAIM
// of the agent's state directory. They are mounted while an instance with the reservation is here, wait between
// instances, grow with a later spec, and are deleted only when a master releases the reservation, which is answered
// also for reservations that are not here.
//
// [Volumes] makes sure that the calls for one reservation exclude each other, and that no reservation is deleted or
// unmounted that an instance may use: its owner says who does (Config.InUse). What is mounted is the machine's and
// stays when this process ends: whoever comes back finds it, and what is mounted for nobody is unmounted by
// UnmountUnknown. A release is kept in memory only, since a master says it in each session until it is answered; one
// that fails is tried again for as long as it takes.
package volume
