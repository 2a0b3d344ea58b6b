package master

import (
	"maps"
	"slices"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// alike keeps once what many agents say of themselves.
type alike struct {
	texts map[string]string
	sets  map[string]map[string]string
}

// alikeMost is how much of each is remembered. When there is more, it begins anew: what agents hold stays theirs.
const alikeMost = 1 << 14

// agent replaces what an agent says by what others said before, where that is the same.
func (k *alike) agent(a *kernel.Agent) {
	for _, text := range []*string{&a.Region, &a.Zone, &a.Version, &a.Kernel, &a.Cgroup} {
		*text = k.text(*text)
	}
	a.Attributes, a.Bundles = k.set(a.Attributes), k.set(a.Bundles)
}

func (k *alike) text(text string) string {
	if text == "" {
		return ""
	}
	if known, ok := k.texts[text]; ok {
		return known
	}
	if k.texts == nil || len(k.texts) >= alikeMost {
		k.texts = map[string]string{}
	}
	k.texts[text] = text
	return text
}

func (k *alike) set(set map[string]string) map[string]string {
	if len(set) == 0 {
		return nil
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(set)) {
		b.WriteString(name + "\x00" + set[name] + "\x00")
	}
	if known, ok := k.sets[b.String()]; ok && maps.Equal(known, set) {
		return known
	}
	if k.sets == nil || len(k.sets) >= alikeMost {
		k.sets = map[string]map[string]string{}
	}
	k.sets[b.String()] = set
	return set
}
