package event

import "iter"

// Steps cuts events into the parts that are to be steps: as few as can be, but an event that changes what placements
// are judged by is one of its own, so that whoever judges a step does so by what held when it was decided.
func Steps(events []Event) iter.Seq[[]Event] {
	return func(yield func([]Event) bool) {
		from := 0
		for k, ev := range events {
			if !alone(ev) {
				continue
			}
			if from < k && !yield(events[from:k]) || !yield(events[k:k+1]) {
				return
			}
			from = k + 1
		}
		if from < len(events) {
			yield(events[from:])
		}
	}
}

// alone reports whether an event is a step of its own.
func alone(ev Event) bool {
	switch ev.(type) {
	case AgentUp, SetQuota, RemoveAgent:
		return true
	}
	return false
}
