package services

import "github.com/marinaos/marina/internal/kernel"

// Alarms lists what was set aside, by subject.
func (s *Services) Alarms() []kernel.Alarm {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]kernel.Alarm{}, s.alarms...)
}
