// Package spec keeps the specs that something is made from, each once, with what is worked out from it once: the
// request to placement, what an instance needs, the ports of its endpoints.
//
// A [Table] belongs to one goroutine and is memory only: its owner writes the rows. A spec is there while an instance
// or a waiting instance uses it, and holds its VIPs and its request to placement for as long: [Table.Wait] and
// [Table.Place] begin uses, [Table.Unuse] and [Table.Release] end them.
package spec
