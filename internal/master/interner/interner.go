package interner

import (
	"maps"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Interner deduplicates strings and attribute sets that many agents report. The zero value is empty.
type Interner struct {
	texts map[string]string
	sets  map[string]map[string]string
}

// maxInterned bounds each map. Past it the map begins anew: agents keep the copies they hold.
const maxInterned = 1 << 14

// Agent replaces what an agent says by what others said before, where that is the same. Empty sets are nil, as they
// are read back from its row.
func (k *Interner) Agent(a *kernel.Agent) {
	for _, text := range []*string{&a.Region, &a.Zone, &a.Version, &a.Kernel, &a.Cgroup} {
		*text = k.text(*text)
	}
	a.Attributes, a.Bundles = k.set(a.Attributes), k.set(a.Bundles)
}

// known returns the first value under a key, which this one becomes if there is none.
func known[T any](before *map[string]T, key string, said T) T {
	if first, ok := (*before)[key]; ok {
		return first
	}
	if *before == nil || len(*before) >= maxInterned {
		*before = map[string]T{}
	}
	(*before)[key] = said
	return said
}

func (k *Interner) text(text string) string { return known(&k.texts, text, text) }

func (k *Interner) set(set map[string]string) map[string]string {
	if len(set) == 0 {
		return nil
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(set)) {
		b.WriteString(name + "\x00" + set[name] + "\x00")
	}
	if first := known(&k.sets, b.String(), set); maps.Equal(first, set) { // a zero byte may also be in what was said
		return first
	}
	return set
}
