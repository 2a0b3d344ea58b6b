package scheduler

import (
	"maps"
	"slices"
	"sync"

	"github.com/marinaos/marina/internal/kernel"
)

// Alarms are what a scheduler set aside, at most one for each subject. The zero Alarms is empty; it is safe for
// concurrent use.
type Alarms struct {
	mu        sync.Mutex              // a leaf: nothing is called under it
	bySubject map[string]kernel.Alarm // guarded by mu
}

// Raise notes an alarm, in place of an earlier one of its subject. It reports whether it says something new.
func (s *Alarms) Raise(a kernel.Alarm) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bySubject == nil {
		s.bySubject = map[string]kernel.Alarm{}
	}
	old, was := s.bySubject[a.Subject]
	if was && old.Problem == a.Problem && old.Do == a.Do {
		return false
	}
	s.bySubject[a.Subject] = a
	return true
}

// Clear ends the alarm of a subject, if there is one.
func (s *Alarms) Clear(subject string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bySubject, subject)
}

// List is all alarms by subject.
func (s *Alarms) List() []kernel.Alarm {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []kernel.Alarm{}
	for _, subject := range slices.Sorted(maps.Keys(s.bySubject)) {
		out = append(out, s.bySubject[subject])
	}
	return out
}
