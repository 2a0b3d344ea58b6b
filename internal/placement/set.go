package placement

import "math/bits"

// height is the number of levels of a set and of a Pool's aggregates: enough for 64^height machines.
const height = 4

// set is a hierarchical bitmap of machine numbers: a bit for each machine, and level by level above it a bit for each
// word that is not empty, so that sets are intersected without reading words that are empty in one of them.
type set struct {
	words [height][]uint64
	n     int // members
}

// word returns one word of a level; beyond the last it is empty.
func (s *set) word(level int, w int32) uint64 {
	if int(w) < len(s.words[level]) {
		return s.words[level][w]
	}
	return 0
}

func (s *set) has(i int32) bool { return s.word(0, i>>6)>>(i&63)&1 != 0 }

// setMember adds machine i to the set or removes it.
func (s *set) setMember(i int32, in bool) {
	bit := uint64(1) << (i & 63)
	if in {
		s.setWord(i>>6, s.word(0, i>>6)|bit)
	} else {
		s.setWord(i>>6, s.word(0, i>>6)&^bit)
	}
}

// setMembers adds all members of o to the set or removes them.
func (s *set) setMembers(o *set, in bool) {
	for w, word := range o.words[0] {
		switch w := int32(w); {
		case word == 0:
		case in:
			s.setWord(w, s.word(0, w)|word)
		default:
			s.setWord(w, s.word(0, w)&^word)
		}
	}
}

// setWord replaces a word of the lowest level and updates the levels above.
func (s *set) setWord(w int32, now uint64) {
	was := s.word(0, w)
	s.n += bits.OnesCount64(now) - bits.OnesCount64(was)
	s.grow(0, w)
	s.words[0][w] = now
	for level := 1; level < height && (was == 0) != (now == 0); level++ {
		bit := uint64(1) << (w & 63)
		w >>= 6
		s.grow(level, w)
		was = s.words[level][w]
		now = was ^ bit
		s.words[level][w] = now
	}
}

func (s *set) grow(level int, w int32) {
	for len(s.words[level]) <= int(w) {
		s.words[level] = append(s.words[level], 0)
	}
}

// copyFrom makes the set equal to o.
func (s *set) copyFrom(o *set) {
	for level := range s.words {
		s.words[level] = append(s.words[level][:0], o.words[level]...)
	}
	s.n = o.n
}

func (s *set) clear() { s.copyFrom(&set{}) }

// each yields the members, lowest first.
func (s *set) each(yield func(int32) bool) {
	for w, word := range s.words[0] {
		for ; word != 0; word &= word - 1 {
			if !yield(int32(w<<6 + bits.TrailingZeros64(word))) {
				return
			}
		}
	}
}
