package kubernetes

import "github.com/marinaos/marina/internal/kernel"

// Alarms lists what was set aside, by subject.
func (k *Clusters) Alarms() []kernel.Alarm {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return append([]kernel.Alarm{}, k.alarms...)
}
