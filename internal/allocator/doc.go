// Package allocator is the quota tree ([Tree]): it decides how much each role may use, and which role is next while
// there is not enough for all. Use of "/prod/web" counts against "/prod/web", "/prod" and "/", and the limits of all
// three apply.
//
// # Guarantees
//
// A role is entitled, in each resource, to the larger of its guarantee and of its own use plus the entitlements of
// the roles below it. Unused entitlements are not given to others. A launch within a guarantee does not change what
// anybody is entitled to, and so passes; any other launch needs as much free as it asks for, beside all unused
// entitlements. Preemptible work (priority below zero) may use unused entitlements of others: guarantees are not
// checked for it, it fills none, and it is preempted (see master) when its place is needed. Amounts are sums over all
// open machines: whether one machine has as much free is decided by placement.
//
// # Who is next
//
// A [Round] serves waiting roles one instance after another, by weighted dominant resource fairness along the tree:
// next is the role with the smallest dominant share (its largest fraction of any resource, divided by its weight).
// Siblings are compared at every level, those with an unfilled guarantee first. The share of an inner role comes from
// the use of its children: waiting ones are scaled down to the smallest share among them (so that a child that uses
// much of one resource does not hold back a sibling that waits for a different one), the others count in full.
//
// # Promises
//
// The package is pure: no clock, no I/O, no goroutine, and nothing depends on the order of a map. A Tree is owned by
// one goroutine. Quotas bind new use only: one lowered below what is used stops launches and ends nothing. Numbers
// saturate, so that an absurd limit or request is large and never wraps into a small one. A refusal is a sentence
// that names the role, the component, and the three numbers.
package allocator
