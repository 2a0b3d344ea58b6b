// Package interner keeps one copy of the text and attribute sets that many agents report alike.
//
// An [Interner] belongs to one goroutine, and is bounded: it begins anew when it remembers too much, and whoever holds
// a copy keeps it.
package interner
