// Package volume keeps the volumes of claims on one machine: filesystems in files, below volumes/FRAMEWORK/CLAIM of the
// agent's state directory. They are mounted while a group with the claim is here, wait between groups, grow with a
// later spec, and are deleted only when a master releases the claim, which is answered also for claims that are not
// here.
//
// [Claims] makes sure that the calls for one claim exclude each other, and that no claim is deleted or unmounted that a
// group may use: its owner says who does (Config.InUse). What is mounted is the machine's and stays when this process
// ends: whoever comes back finds it, and what is mounted for nobody is unmounted by UnmountUnknown. A release is kept
// in memory only, since a master says it in each session until it is answered; one that fails is tried again for as
// long as it takes.
package volume
