// Package resources reads amounts of what machines have as people give them on a command line: cores, MiB, devices.
// Quotas and reservations share it, and the paths of the roles that have them.
package resources
