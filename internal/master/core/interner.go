package core

import (
	"maps"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// interner deduplicates strings and attribute sets that many agents report.
type interner struct {
	texts map[string]string
	sets  map[string]map[string]string
}

// maxInterned is how much of each is remembered. When there is more, it begins anew: what agents hold stays theirs.
const maxInterned = 1 << 14

// agent replaces what an agent says by what others said before, where that is the same. Empty sets are nil, as they
// are read back from its row.
func (k *interner) agent(a *kernel.Agent) {
	for _, text := range []*string{&a.Region, &a.Zone, &a.Version, &a.Kernel, &a.Cgroup} {
		*text = k.text(*text)
	}
	a.Attributes, a.Bundles = k.set(a.Attributes), k.set(a.Bundles)
}

// known is what was said first under a key.
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

func (k *interner) text(text string) string { return known(&k.texts, text, text) }

func (k *interner) set(set map[string]string) map[string]string {
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
