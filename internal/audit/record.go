package audit

import (
	"context"
	"sync"
	"time"
)

// Record is one change, or the attempt at one. Its JSON is the form on disk and on the wire.
type Record struct {
	Number   int64             `json:"number"` // increases by one; given by the Log
	Time     time.Time         `json:"time"`   // when the request came
	Who      string            `json:"who,omitempty"`
	Token    string            `json:"token,omitempty"` // id of the token that was used, never the token itself
	From     string            `json:"from"`            // address of the client, or "socket"
	Action   string            `json:"action"`          // the HTTP method
	Path     string            `json:"path"`            // without its query
	Phase    string            `json:"phase,omitempty"` // PhaseBegun, PhaseEnded; empty for what is done at once
	Status   int               `json:"status,omitempty"`
	Outcome  Outcome           `json:"outcome"`
	Duration time.Duration     `json:"duration,omitempty"` // nanoseconds until the answer
	Notes    map[string]string `json:"notes,omitempty"`    // what the path does not say: "deployment", "uid"
}

// The phases of a session, which is recorded twice.
const (
	PhaseBegun = "begun"
	PhaseEnded = "ended"
)

// Outcome says how a change ended.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Refused Outcome = "refused" // 4xx: bad input, no right, not there
	Failed  Outcome = "failed"  // 5xx, or no answer at all: whether it took effect is not known
	Begun   Outcome = "begun"   // a session that goes on
)

// OutcomeOf is the outcome that a status code tells; 0 is no answer.
func OutcomeOf(status int) Outcome {
	switch {
	case status == 0 || status >= 500:
		return Failed
	case status >= 400:
		return Refused
	}
	return Done
}

// maxNotes and maxNote bound what a room adds to one record.
const (
	maxNotes = 8
	maxNote  = 512
)

// notes gathers what rooms add to the record of a request.
type notes struct {
	mu  sync.Mutex
	all map[string]string // guarded by mu
}

type notesKey struct{}

// WithNotes returns a context in which Note adds to a record, and the function that takes the notes.
func WithNotes(ctx context.Context) (context.Context, func() map[string]string) {
	n := &notes{}
	return context.WithValue(ctx, notesKey{}, n), func() map[string]string {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.all
	}
}

// Note adds a fact to the record of the request that ctx belongs to. It does nothing where there is no record. At most
// 8 facts of 512 bytes are kept. What it says must be no secret.
func Note(ctx context.Context, key, value string) {
	n, ok := ctx.Value(notesKey{}).(*notes)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]string{}
	}
	if len(n.all) < maxNotes {
		n.all[key] = value[:min(len(value), maxNote)]
	}
}
