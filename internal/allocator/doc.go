// Package allocator decides who may use how much: a tree of roles by their paths, with limits on what the groups of a role may
// be guaranteed together. What "/prod/web" uses counts against "/prod/web", "/prod" and "/", and every limit on that way
// holds.
//
// # Guarantees
//
// The package is pure: no clock, no I/O, no goroutine. A Tree is owned by one goroutine. Limits bind new use only: a limit
// lowered below what is used stops launches and ends nothing. Numbers saturate, so that an absurd limit or request is large and
// never wraps into a small one. A refusal is a sentence that names the role, the component, and the three numbers.
package allocator
