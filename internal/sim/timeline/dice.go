package timeline

import (
	"math/rand/v2"
	"time"
)

// Dice are the only source of chance.
type Dice struct{ *rand.Rand }

// NewDice returns the dice of a seed.
func NewDice(seed uint64) Dice { return Dice{rand.New(rand.NewPCG(seed, 0x6d6172696e61))} }

// Chance is true with probability p.
func (d Dice) Chance(p float64) bool { return p > 0 && d.Float64() < p }

// Between is a time from lo to hi.
func (d Dice) Between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.Int64N(int64(hi-lo)+1))
}
