// Package subnet keeps the pool of container addresses and which machine has which subnet of it.
//
// A [Pool] belongs to one goroutine and is memory only: its owner writes the rows. A subnet has one holder from Give or
// Load until Return. The pool may become another prefix, as long as that has all of the configured one: what was given
// out never moves.
package subnet
