package kernel

import "time"

// Alarm is a part of the datacenter that was set aside because going on with it could do harm: a row that cannot be
// read, an app or a cluster whose decision panicked. What runs of it is left alone until somebody acts. Health and
// `marina status` list alarms by name.
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
