// Package allocator decides who may use how much, and who is next while there is not enough: a [Tree] of roles by their paths.
// What "/prod/web" uses counts against "/prod/web", "/prod" and "/", and every limit on that way holds.
//
// # Guarantees
//
// A role's guarantee is held for it. Each role holds the larger of its guarantee and of what it and the roles below it use and hold,
// in each resource; what all of them hold and do not use is not given to others. A launch within a guarantee adds nothing to what is held and
// so needs nobody's leave; any other needs as much free as it asks for beyond what is held. Work with a priority below zero runs on
// what is free or lent: it is not asked about guarantees, counts for none, and makes way (see master) when its place is asked for. Amounts are sums over
// all open machines: that one machine has as much free together is placement's business.
//
// # Who is next
//
// A [Round] serves roles that wait one instance after another, by weighted dominant resource fairness along the tree: the role whose largest
// fraction of any resource, by its weight, is the least. Siblings are compared at every level, those with an unfilled guarantee first. For a role
// with others below it what counts is what these use, with that of those that wait scaled down to the least of them (so that one that uses much of
// one resource does not stand for another that waits for a different one) and that of those that do not wait in full.
//
// # Promises
//
// The package is pure: no clock, no I/O, no goroutine, and nothing depends on the order of a map. A Tree is owned by one goroutine. Quotas bind new
// use only: one lowered below what is used stops launches and ends nothing. Numbers saturate, so that an absurd limit or request is large and
// never wraps into a small one. A refusal is a sentence that names the role, the component, and the three numbers.
package allocator
