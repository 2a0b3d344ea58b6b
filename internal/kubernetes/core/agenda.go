package core

import "time"

// sweep is the interval at which all clusters are settled, whatever happened.
const sweep = time.Minute

// agenda says which clusters are to be settled when.
type agenda struct {
	now   map[string]bool
	later map[string]time.Time
	swept time.Time // when all were settled last
}

// touch notes that something of a cluster changed.
func (a *agenda) touch(name string) { a.now[name] = true }

// due touches the clusters whose time has come, and reports whether there are any.
func (a *agenda) due(all map[string]*Cluster, now time.Time) bool {
	any := false
	if now.Sub(a.swept) >= sweep {
		a.swept, any = now, true
		for name := range all {
			a.touch(name)
		}
	}
	for name, at := range a.later {
		if !now.Before(at) {
			a.touch(name)
			any = true
		}
	}
	return any
}

// take returns the clusters to settle now, sorted, and takes them off.
func (a *agenda) take() []string {
	names := sortedKeys(a.now)
	clear(a.now)
	for _, name := range names {
		delete(a.later, name)
	}
	return names
}

// at notes when to settle a cluster; the zero time: when something changes.
func (a *agenda) at(name string, t time.Time) {
	if !t.IsZero() {
		a.later[name] = t
	}
}

// next returns the time of the next cluster to settle, or of the next sweep.
func (a *agenda) next() time.Time {
	next := a.swept.Add(sweep)
	for _, at := range a.later {
		if at.Before(next) {
			next = at
		}
	}
	return next
}
