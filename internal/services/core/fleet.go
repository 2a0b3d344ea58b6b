package core

import (
	"cmp"
	"slices"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// fleet is one app's instances and how it fares.
type fleet struct {
	instances   *kernel.Index[*Instance]
	order       []*Instance // the same by id, as of Decide; nil since one came or went
	backoff     Backoff
	lastFailure *marathon.TaskFailure
	parked      string // why nothing is decided about it, see aside.go; empty: it is

	// Notes of Decide.
	stale   bool      // something changed: look at the app
	wake    time.Time // look at it then, zero: no need
	missing int       // instances that are to be launched and were not
	since   time.Time // missing is above zero
	done    bool      // the app is what its goal says
	why     string    // why it is not
}

// Backoff is the pause before an app's next launch. It belongs to one config version.
type Backoff struct {
	Version string
	Delay   time.Duration // the last pause
	Last    time.Time     // the last failure
	Until   time.Time
}

// raise lengthens the pause after a failure of an instance of a.
func (b *Backoff) raise(a *marathon.App, now time.Time, least time.Duration) {
	longest := seconds(a.MaxLaunchDelaySeconds)
	if b.Version != a.Config() || now.Sub(b.Last) > b.Delay+longest {
		*b = Backoff{Version: a.Config()}
	}
	if b.Delay == 0 {
		b.Delay = seconds(a.BackoffSeconds)
	} else {
		b.Delay = time.Duration(min(float64(b.Delay)*a.BackoffFactor, float64(longest)))
	}
	b.Delay = max(min(b.Delay, longest), least)
	b.Last, b.Until = now, now.Add(b.Delay)
}

// all lists the instances by id. It is shared.
func (f *fleet) all() []*Instance {
	if f.order != nil {
		return f.order
	}
	out := make([]*Instance, 0, f.instances.Len())
	for i := range f.instances.All {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b *Instance) int { return cmp.Compare(a.ID(), b.ID()) })
	return out
}

func (f *fleet) add(i *Instance) {
	f.instances.Put(i)
	f.order = nil
}

func (f *fleet) drop(id kernel.InstanceID) {
	f.instances.Delete(id)
	f.order = nil
}

func (f *fleet) wakeAt(t time.Time) {
	if f.wake.IsZero() || t.Before(f.wake) {
		f.wake = t
	}
}

func (f *fleet) waiting() []*Instance {
	return slices.DeleteFunc(slices.Clone(f.all()), func(i *Instance) bool { return !i.Waiting || i.Stopping })
}
