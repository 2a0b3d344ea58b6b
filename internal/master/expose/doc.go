// Package expose keeps the ports that an owner was given beside its specs: they go out with the endpoints of all its
// instances, and their VIPs are held for as long.
//
// A [Table] belongs to one goroutine and is memory only: its owner writes the rows. [Table.Make] holds the VIPs of new
// ports, [Table.Set] releases those of the ports before.
package expose
