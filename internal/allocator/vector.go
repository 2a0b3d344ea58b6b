package allocator

import (
	"slices"

	"github.com/marinaos/marina/internal/kernel"
)

type vector [len(kernel.Components)]float64

func (t *Tree) fractions(r kernel.Resources) (v vector) {
	total := t.total.Parts()
	for c, n := range r.Parts() {
		if total[c] > 0 && n > 0 {
			v[c] = float64(n) / float64(total[c])
		}
	}
	return v
}

func (v *vector) add(o vector, times float64) {
	for k := range v {
		v[k] += o[k] * times
	}
}

// largest returns the largest component, at least zero: sums of differences can leave a little less.
func (v *vector) largest() float64 { return max(slices.Max(v[:]), 0) }
