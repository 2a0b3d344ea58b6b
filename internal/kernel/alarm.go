package kernel

import "time"

// Alarm is something that needs somebody to act: a store with little room, an audit log that cannot be written, or a
// part of the datacenter that was set aside because going on with it could do harm, be it a row that cannot be read or
// an app or a cluster whose decision panicked. What runs of that is left alone. Health and `marina status` list alarms
// by name.
type Alarm struct {
	Subject string    `json:"subject"`      // what is concerned: "app /prod/web", "cluster blue", "deployment 4b2…"
	Problem string    `json:"problem"`      // what is wrong, in a sentence
	Do      string    `json:"do,omitempty"` // what the operator can do about it, a command where possible
	Since   time.Time `json:"since,omitzero"`
}

// String is the alarm in one line.
func (a Alarm) String() string {
	line := a.Subject + ": " + a.Problem
	if a.Do != "" {
		line += "; " + a.Do
	}
	return line
}
