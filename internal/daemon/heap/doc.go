// Package heap keeps a process small whose heap is mostly what it needs. Go lets a heap grow by as much again before it
// collects what is free; a leader with a million tasks would take twice what they are. Here it grows by a quarter and
// [Headroom], which for a small heap is Go's usual and for a large one is paid for with processor time only while much
// is allocated.
//
// How it fails: collections take more of the processor, at most half of it, as the Go runtime limits them.
package heap
