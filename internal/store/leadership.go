package store

import "context"

// Leadership is a won election. Work done as the leader runs under Context and every transaction of it carries Fence.
type Leadership struct {
	ctx      context.Context // the tenure itself, not a call's context: so it is stored
	cancel   context.CancelCauseFunc
	election string
	identity string
	epoch    int64
	release  func(context.Context) error
}

// NewLeadership is for implementations of Store. cancel ends ctx; release deletes the leader's row, and does nothing
// when it is gone already.
func NewLeadership(ctx context.Context, cancel context.CancelCauseFunc, election, identity string, epoch int64,
	release func(context.Context) error) *Leadership {
	return &Leadership{ctx: ctx, cancel: cancel, election: election, identity: identity, epoch: epoch, release: release}
}

// Election returns the name of the election that was won.
func (l *Leadership) Election() string { return l.election }

// Identity returns the winner's identity, as given to Campaign.
func (l *Leadership) Identity() string { return l.identity }

// Epoch returns the create revision of the leader's row. A later leader of the same election always has a higher one.
func (l *Leadership) Epoch() int64 { return l.epoch }

// Fence returns the guard that every transaction of this leader carries. It fails with ErrFenced once the leader's
// row is gone.
func (l *Leadership) Fence() Guard { return Fence(l.election, l.epoch) }

// Context ends when another process may lead: with cause ErrLeadershipLost, ErrResigned, ErrClosed, or that of the
// campaign's context.
func (l *Leadership) Context() context.Context { return l.ctx }

// Resign ends Context, then deletes the leader's row so that the next leader need not wait for the lease. Stop
// working as the leader first. After an error the row goes away when its lease expires.
func (l *Leadership) Resign(ctx context.Context) error {
	l.cancel(ErrResigned)
	return l.release(ctx)
}
