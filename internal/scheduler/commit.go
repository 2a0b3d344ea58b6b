package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
)

// Change is rows to write and what follows once they are durable. The zero Change is empty.
type Change struct {
	ops     map[string]store.Op
	applied []func()
	after   []func(context.Context) error
	always  bool
}

// Always has the change written also when the store has no room for what people ask for: it frees some, by itself or by
// what follows from it, or what runs already needs it.
func (c *Change) Always() { c.always = true }

// Put adds a row to write or to delete. The last one of a key counts.
func (c *Change) Put(op store.Op) {
	if c.ops == nil {
		c.ops = map[string]store.Op{}
	}
	c.ops[op.Key] = op
}

// Then has f take the change into the scheduler's state, once it is durable.
func (c *Change) Then(f func()) { c.applied = append(c.applied, f) }

// After has f carry out, once the change is in the state, what its asker waits for: something is asked of the kernel.
// An error ends the leadership.
func (c *Change) After(f func(context.Context) error) { c.after = append(c.after, f) }

// txn is the change as a transaction of its own, in the order of keys.
func (c *Change) txn(fence store.Guard) store.Txn {
	t := store.Txn{Guards: []store.Guard{fence}}
	for _, key := range slices.Sorted(maps.Keys(c.ops)) {
		t.Ops = append(t.Ops, c.ops[key])
	}
	return t
}

// Commit makes one change durable, in one transaction, and takes it in. A change without rows is taken in at once. A
// change that the store refuses for its size or form is an errdefs.ErrInvalidArgument and nothing happened; any other
// error ends the leadership. The owner goroutine calls it.
func (l *Loop) Commit(ctx context.Context, c *Change) error {
	refused, err := l.CommitAll(ctx, []*Change{c})
	return errors.Join(refused[c], err)
}

// CommitAll makes changes durable that are independent of each other, in their order, as many to a transaction as
// fit. Those that fit none are refused, each with an errdefs.ErrInvalidArgument, and the others go on. An error ends
// the leadership: some changes may be durable then. The owner goroutine calls it.
func (l *Loop) CommitAll(ctx context.Context, list []*Change) (refused map[*Change]error, err error) {
	if l.lost != nil {
		return nil, l.lost
	}
	p := portion{txn: store.Txn{Guards: []store.Guard{l.cfg.Fence}}, keys: map[string]bool{}}
	for _, c := range list {
		t := c.txn(l.cfg.Fence)
		if err := t.Validate(); err != nil {
			if refused == nil {
				refused = map[*Change]error{}
			}
			refused[c] = fmt.Errorf("%s: commit: %w", l.cfg.Name, err)
			continue
		}
		if !p.fits(t) {
			if err := l.write(ctx, &p); err != nil {
				return refused, err
			}
		}
		p.add(c, t)
	}
	return refused, l.write(ctx, &p)
}

// portion gathers changes for one transaction.
type portion struct {
	txn     store.Txn
	bytes   int
	keys    map[string]bool
	changes []*Change
}

// fits reports whether a valid transaction of one change can join. Changes of one row stay in their order, in
// transactions of their own.
func (p *portion) fits(t store.Txn) bool {
	if len(p.txn.Ops)+len(t.Ops) > store.MaxTxnOps || p.bytes+t.Bytes() > store.MaxTxnBytes {
		return false
	}
	return !slices.ContainsFunc(t.Ops, func(op store.Op) bool { return p.keys[op.Key] })
}

func (p *portion) add(c *Change, t store.Txn) {
	p.changes = append(p.changes, c)
	p.txn.Ops = append(p.txn.Ops, t.Ops...)
	p.bytes += t.Bytes()
	for _, op := range t.Ops {
		p.keys[op.Key] = true
	}
}

// write commits a portion, takes its changes in, and empties it.
func (l *Loop) write(ctx context.Context, p *portion) error {
	if len(p.txn.Ops) > 0 {
		began := time.Now()
		_, err := l.cfg.Store.Commit(ctx, p.txn)
		l.measures.committed(began, len(p.txn.Ops))
		if err != nil {
			l.lost = fmt.Errorf("%s: commit: %w", l.cfg.Name, err)
			return l.lost
		}
	}
	list := p.changes
	*p = portion{txn: store.Txn{Guards: p.txn.Guards}, keys: map[string]bool{}}
	for _, c := range list {
		for _, f := range c.applied {
			f()
		}
	}
	for _, c := range list {
		for _, f := range c.after {
			if err := f(ctx); err != nil {
				l.lost = fmt.Errorf("%s: %w", l.cfg.Name, err)
				return l.lost
			}
		}
	}
	return nil
}

// Ends reports whether an error of the kernel or of a commit means that this leadership's work is over: this process
// does not lead, or the outcome is unknown. Any other error is about what was asked for.
func Ends(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, store.ErrUnknownOutcome) || errors.Is(err,
		store.ErrFenced) ||
		errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrLeadershipLost) || errors.Is(err, context.Canceled)
}
