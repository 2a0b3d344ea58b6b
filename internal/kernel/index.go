package kernel

import (
	"hash/maphash"
	"math/bits"
)

// Index finds things by the ids of their instances. It keeps no ids of its own: those of a million instances are more
// than all else that an index needs. It is a linear hash table, which grows by one bucket at a time: an insertion moves
// at most what is in one.
type Index[T interface{ ID() InstanceID }] struct {
	hash    func(InstanceID) uint64
	buckets [][]T
	len     int
}

// indexLoad is the number of things in a bucket, on the average.
const indexLoad = 3

// NewIndex returns an empty index.
func NewIndex[T interface{ ID() InstanceID }]() *Index[T] {
	seed := maphash.MakeSeed()
	return &Index[T]{hash: func(id InstanceID) uint64 { return maphash.String(seed, string(id)) }, buckets: make([][]T, 1)}
}

// Len counts them.
func (x *Index[T]) Len() int { return x.len }

// bucket returns the bucket of an id: the last bits of its hash say so, one bit fewer where the bucket is not split
// yet.
func (x *Index[T]) bucket(id InstanceID) int {
	mask := uint64(1)<<bits.Len(uint(len(x.buckets)-1)) - 1
	at := x.hash(id) & mask
	if at >= uint64(len(x.buckets)) {
		at &= mask >> 1
	}
	return int(at)
}

func (x *Index[T]) find(id InstanceID) (bucket, at int) {
	bucket = x.bucket(id)
	for at, t := range x.buckets[bucket] {
		if t.ID() == id {
			return bucket, at
		}
	}
	return bucket, -1
}

// Get finds one; if there is none it is T's zero and false.
func (x *Index[T]) Get(id InstanceID) (t T, ok bool) {
	if b, at := x.find(id); at >= 0 {
		return x.buckets[b][at], true
	}
	return t, false
}

// Put adds one, in place of another with its id.
func (x *Index[T]) Put(t T) {
	b, at := x.find(t.ID())
	if at >= 0 {
		x.buckets[b][at] = t
		return
	}
	x.buckets[b] = append(x.buckets[b], t)
	if x.len++; x.len > indexLoad*len(x.buckets) {
		x.split()
	}
}

// split adds a bucket, and shares out what is in the one that it comes from.
func (x *Index[T]) split() {
	from := len(x.buckets) & (1<<(bits.Len(uint(len(x.buckets)))-1) - 1)
	all := x.buckets[from]
	x.buckets = append(x.buckets, nil)
	var stay, move []T
	for _, t := range all {
		if x.bucket(t.ID()) == from {
			stay = append(stay, t)
		} else {
			move = append(move, t)
		}
	}
	x.buckets[from], x.buckets[len(x.buckets)-1] = stay, move
}

// Delete takes one out.
func (x *Index[T]) Delete(id InstanceID) {
	b, at := x.find(id)
	if at < 0 {
		return
	}
	list := x.buckets[b]
	last := len(list) - 1
	var none T
	list[at], list[last] = list[last], none
	x.buckets[b] = list[:last]
	x.len--
}

// All yields each once, in no order.
func (x *Index[T]) All(yield func(T) bool) {
	for _, list := range x.buckets {
		for _, t := range list {
			if !yield(t) {
				return
			}
		}
	}
}
