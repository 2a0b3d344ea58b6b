package agent

import (
	"fmt"
	"maps"

	"github.com/containerd/errdefs"
)

// bundles finds the directories of the bundles a task wants.
func (a *Agent) bundles(names []string) (map[string]string, error) {
	out := make(map[string]string, len(names))
	for _, n := range names {
		dir, ok := a.cfg.Bundles(n)
		if !ok {
			return nil, fmt.Errorf("bundle %s is not on this machine: %w", n, errdefs.ErrNotFound)
		}
		out[n] = dir
	}
	return out, nil
}

// renewUnless ends the session unless it was registered with these bundles: the next begins with those there are.
func (a *Agent) renewUnless(now map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live != nil && !maps.Equal(now, a.told) {
		a.live.End(fmt.Errorf("the machine has other bundles now, the agent registers anew: %w", errdefs.ErrAborted))
	}
}
