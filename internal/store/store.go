package store

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Limits. A transaction over one of them is refused with errdefs.ErrInvalidArgument.
const (
	// MaxKeyBytes is the longest key.
	MaxKeyBytes = 4 << 10

	// MaxValueBytes is the longest value. Rows stay under RowBytes by convention: a row is rewritten whole.
	MaxValueBytes = 1 << 20

	// RowBytes is the size at which a table splits what it packs into another row.
	RowBytes = 256 << 10

	// MaxTxnOps is the most operations, and separately the most guards, of one transaction.
	MaxTxnOps = 8192

	// MaxTxnBytes is the most bytes of one transaction as Txn.Bytes counts them.
	MaxTxnBytes = 8 << 20
)

// Item is one row. Value is shared by all readers and must not be modified.
type Item struct {
	Key      string
	Value    []byte
	Revision int64 // of the transaction that last changed it
	Created  int64 // revision of the transaction that created it
}

// GuardKind is the comparison that a guard makes.
type GuardKind int

// The kinds of guards. The zero kind is invalid.
const (
	GuardAbsent    GuardKind = iota + 1 // the key has no row
	GuardExists                         // the key has a row
	GuardUnchanged                      // the row was last changed at Revision
	GuardFence                          // the row was created at Revision
)

// Guard is a condition of a transaction. Make one with Absent, Exists, Unchanged, Fence or Leadership.Fence.
type Guard struct {
	Kind     GuardKind
	Key      string
	Revision int64
}

// Absent holds while key has no row.
func Absent(key string) Guard { return Guard{Kind: GuardAbsent, Key: key} }

// Exists holds while key has a row.
func Exists(key string) Guard { return Guard{Kind: GuardExists, Key: key} }

// Unchanged holds while the row of key was last changed at revision: Item.Revision of what was read.
func Unchanged(key string, revision int64) Guard {
	return Guard{Kind: GuardUnchanged, Key: key, Revision: revision}
}

// Fence holds while the leader of election is the one whose epoch this is. Leadership.Fence is the usual way to get it.
func Fence(election string, epoch int64) Guard {
	return Guard{Kind: GuardFence, Key: LeaderKey(election), Revision: epoch}
}

func (g Guard) check(created, changed int64) error {
	var holds bool
	switch g.Kind {
	case GuardAbsent:
		holds = changed == 0
	case GuardExists:
		holds = changed != 0
	case GuardUnchanged:
		holds = changed == g.Revision
	case GuardFence:
		holds = created == g.Revision
	}
	if holds {
		return nil
	}
	return &GuardError{Guard: g, Created: created, Changed: changed}
}

func (g Guard) want() string {
	switch g.Kind {
	case GuardAbsent:
		return "absent"
	case GuardExists:
		return "present"
	case GuardUnchanged:
		return fmt.Sprintf("changed at %d", g.Revision)
	case GuardFence:
		return fmt.Sprintf("created at %d", g.Revision)
	}
	return fmt.Sprintf("guard kind %d", g.Kind)
}

// OpKind is the effect of an operation.
type OpKind int

// The kinds of operations. The zero kind is invalid.
const (
	OpPut OpKind = iota + 1
	OpDelete
)

// Op is one change of a transaction. Make one with Put, Delete or a Table.
type Op struct {
	Kind  OpKind
	Key   string
	Value []byte // of a put
}

// Put writes value as the row of key. The value belongs to the store from then on.
func Put(key string, value []byte) Op { return Op{Kind: OpPut, Key: key, Value: value} }

// Delete removes the row of key. Removing a row that is not there does nothing.
func Delete(key string) Op { return Op{Kind: OpDelete, Key: key} }

// Txn is a transaction: if all guards hold, all operations happen. A key has at most one operation.
type Txn struct {
	Guards []Guard
	Ops    []Op
}

// opOverhead is the bytes of an operation or guard beyond its key and value, rounded up from etcd's encoding.
const opOverhead = 64

// Bytes returns the size of the transaction that MaxTxnBytes limits: all keys and values and 64 bytes for each
// operation and guard, guards counted twice, since the rows they compare travel back.
func (t Txn) Bytes() int {
	n := opOverhead * (2*len(t.Guards) + len(t.Ops))
	for _, g := range t.Guards {
		n += 2 * len(g.Key)
	}
	for _, op := range t.Ops {
		n += len(op.Key) + len(op.Value)
	}
	return n
}

// Validate returns an errdefs.ErrInvalidArgument when the transaction breaks a limit or a rule. Commit calls it first.
func (t Txn) Validate() error {
	if len(t.Guards) > MaxTxnOps || len(t.Ops) > MaxTxnOps {
		return invalid("transaction: %d operations and %d guards, of each at most %d fit: split it",
			len(t.Ops), len(t.Guards), MaxTxnOps)
	}
	if n := t.Bytes(); n > MaxTxnBytes {
		return invalid("transaction: %d bytes, at most %d fit: split it", n, MaxTxnBytes)
	}
	for _, g := range t.Guards {
		if g.Kind < GuardAbsent || g.Kind > GuardFence {
			return invalid("guard of row %s: no kind: make guards with their functions", g.Key)
		}
		if err := validateKey(g.Key); err != nil {
			return err
		}
	}
	seen := make(map[string]struct{}, len(t.Ops))
	for _, op := range t.Ops {
		if op.Kind != OpPut && op.Kind != OpDelete {
			return invalid("operation on row %s: no kind: make operations with their functions", op.Key)
		}
		if err := validateKey(op.Key); err != nil {
			return err
		}
		if len(op.Value) > MaxValueBytes {
			return invalid("row %s: %d bytes, a value has at most %d: pack less into a row",
				op.Key, len(op.Value), MaxValueBytes)
		}
		if _, twice := seen[op.Key]; twice {
			return invalid("row %s: two operations in one transaction: keep the last", op.Key)
		}
		seen[op.Key] = struct{}{}
	}
	return nil
}

// Judge checks all guards, given a function that returns a key's create and last revisions (zeros for an absent key).
// The error is a *GuardError: that of a fence that does not hold before that of any other guard.
func (t Txn) Judge(revisions func(key string) (created, changed int64)) error {
	var first error
	for _, g := range t.Guards {
		err := g.check(revisions(g.Key))
		if err != nil && (first == nil || g.Kind == GuardFence) {
			first = err
		}
		if err != nil && g.Kind == GuardFence {
			break
		}
	}
	return first
}

func validateKey(key string) error {
	if key == "" || len(key) > MaxKeyBytes {
		return invalid("key of %d bytes: a key has 1 to %d", len(key), MaxKeyBytes)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// Snapshot has every row under a prefix as of one revision, in key order.
type Snapshot struct {
	Revision int64
	Items    []Item
}

// Status is the health and size of the store.
type Status struct {
	Healthy  bool     // it has a leader, accepts writes and has no problems
	Problems []string // sentences for an operator: no space left, corruption, no leader
	Revision int64    // of the newest transaction
	Bytes    int64    // of the database on disk, zero in memory
	InUse    int64    // bytes of it that hold data
	Quota    int64    // bytes that it is meant to have at most
	NoSpace  bool     // it refuses writes, and elections, until space is reclaimed
}

// Store is the contract. Implementations are safe for concurrent use. Errors about a lost or closed store are of kind
// errdefs.ErrUnavailable; a call whose context ends returns the context's cause in its error.
type Store interface {
	// Commit applies txn and returns its revision once it is durable on a quorum. See the package comment for the
	// kinds of errors. A transaction that changes nothing returns the current revision.
	Commit(ctx context.Context, txn Txn) (revision int64, err error)

	// Get returns the row of key, or errdefs.ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)

	// Snapshot returns all rows whose keys begin with prefix (see Prefix; "" is everything) at one revision.
	Snapshot(ctx context.Context, prefix string) (*Snapshot, error)

	// Watch returns a snapshot of prefix and follows it. ctx bounds the call only; the caller closes the watch.
	Watch(ctx context.Context, prefix string) (*Watch, error)

	// Campaign blocks until identity leads election, ctx ends (its cause is in the error) or the store is lost. The
	// leadership's context is a child of ctx: when ctx ends, so does leading, though only Resign hands over at once.
	Campaign(ctx context.Context, election, identity string) (*Leadership, error)

	// Status asks the store for its health. An error means that it did not answer.
	Status(ctx context.Context) (Status, error)

	// Close releases everything within a bounded time. Calls after it return ErrClosed.
	Close() error
}
