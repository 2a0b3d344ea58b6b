// Package removed remembers the machines that were removed from the datacenter.
//
// A machine that was removed is no member any more: nothing of it is counted, waited for or kept, and what is its own
// (row, subnet, place in every list) is free. Its id stays among the removed, so that it cannot come back with what
// it ran: should its agent dial again, it is told to end everything and that it was removed. Whoever wants it back
// has it begin with a new id.
//
// A [Machines] belongs to one goroutine and is memory only: its owner writes the rows.
package removed
