// Package ended remembers instances that are over: their ids, so that a repeated request launches none again ([IDs]),
// and the last records, for those who ask what became of a task ([Past]).
//
// Both belong to one goroutine and are bounded. The ids of a framework are a ring of rows, of which an end changes the
// newest only; their owner writes the rows.
package ended
