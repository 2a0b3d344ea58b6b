package store

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// The kinds of failure that callers branch on, with errors.Is. Each also is an errdefs kind, named beside it.
var (
	// ErrConflict (errdefs.ErrAborted): a guard did not hold and nothing happened. Read again, decide again.
	ErrConflict = fmt.Errorf("the state changed since it was read, read it again: %w", errdefs.ErrAborted)

	// ErrFenced (errdefs.ErrFailedPrecondition): a leadership's fence did not hold and nothing happened. The writer
	// is not the leader any more. A transaction whose fence and another guard both fail is fenced, not in conflict.
	ErrFenced = fmt.Errorf("leadership was lost, stop acting as the leader: %w", errdefs.ErrFailedPrecondition)

	// ErrUnknownOutcome (errdefs.ErrUnknown): the transaction may have happened or may still happen.
	ErrUnknownOutcome = fmt.Errorf("the outcome of the write is unknown, read before writing again: %w",
		errdefs.ErrUnknown)

	// ErrWatchAgain (errdefs.ErrOutOfRange): the watch cannot go on without a gap. Watch again, from a new snapshot.
	ErrWatchAgain = fmt.Errorf("the watch has ended, watch again: %w", errdefs.ErrOutOfRange)

	// ErrLeadershipLost (errdefs.ErrFailedPrecondition) is the cause of a leadership's context when the leader may
	// have been replaced: its lease was not renewed in time, or its row is gone.
	ErrLeadershipLost = fmt.Errorf("leadership was lost: %w", errdefs.ErrFailedPrecondition)

	// ErrResigned (errdefs.ErrFailedPrecondition) is the cause of a leadership's context after Resign.
	ErrResigned = fmt.Errorf("leadership was resigned: %w", errdefs.ErrFailedPrecondition)

	// ErrClosed (errdefs.ErrUnavailable): the store was closed.
	ErrClosed = fmt.Errorf("the store is closed: %w", errdefs.ErrUnavailable)
)

// GuardError names the guard of a transaction that did not hold. It is ErrFenced for a fence and ErrConflict for any
// other.
type GuardError struct {
	Guard   Guard
	Created int64 // create revision of the key when the guard was judged, zero if it was absent
	Changed int64 // revision that last changed the key, zero if it was absent
}

// Error names the key, the state that the guard wanted and the state it found.
func (e *GuardError) Error() string {
	found := "absent"
	if e.Changed != 0 {
		found = fmt.Sprintf("created at %d, changed at %d", e.Created, e.Changed)
	}
	return fmt.Sprintf("row %s: want %s, is %s: %v", e.Guard.Key, e.Guard.want(), found, e.Unwrap())
}

// Unwrap returns ErrFenced or ErrConflict.
func (e *GuardError) Unwrap() error {
	if e.Guard.Kind == GuardFence {
		return ErrFenced
	}
	return ErrConflict
}
