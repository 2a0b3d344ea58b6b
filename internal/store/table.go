package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/containerd/errdefs"
)

// Table gives the rows under one prefix a type: values are JSON of T, ids are the key's last segment and may hold any
// bytes. The zero Table is invalid.
type Table[T any] struct{ prefix string }

// NewTable returns the table of the given name. A name with several parts nests: tables "agents" and "agents",
// "chunks" do not see each other's rows.
func NewTable[T any](name string, more ...string) Table[T] {
	return Table[T]{prefix: Prefix(name, more...)}
}

// Prefix returns the common prefix of the table's keys, for Store.Snapshot and Store.Watch.
func (t Table[T]) Prefix() string { return t.prefix }

// Key returns the key of a row.
func (t Table[T]) Key(id string) string { return t.prefix + Key(id) }

// ID returns the id of a key; false if the key is not of this table.
func (t Table[T]) ID(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, t.prefix)
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return "", false
	}
	id, err := unescape(rest)
	return id, err == nil
}

// Put returns the operation that writes a row. The error is an errdefs.ErrInvalidArgument: the value has no JSON or
// the id is empty.
func (t Table[T]) Put(id string, value T) (Op, error) {
	if id == "" {
		return Op{}, invalid("table %s: a row needs an id", t.prefix)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return Op{}, fmt.Errorf("row %s: encode: %w: %w", t.Key(id), errdefs.ErrInvalidArgument, err)
	}
	return Put(t.Key(id), raw), nil
}

// Delete returns the operation that removes a row.
func (t Table[T]) Delete(id string) Op { return Delete(t.Key(id)) }

// Absent holds while the table has no such row.
func (t Table[T]) Absent(id string) Guard { return Absent(t.Key(id)) }

// Exists holds while the table has such a row.
func (t Table[T]) Exists(id string) Guard { return Exists(t.Key(id)) }

// Unchanged holds while the row was last changed at revision: Row.Revision of what was read.
func (t Table[T]) Unchanged(id string, revision int64) Guard { return Unchanged(t.Key(id), revision) }

// Row is a decoded item.
type Row[T any] struct {
	ID       string
	Value    T
	Revision int64 // of the transaction that last changed it
	Created  int64
}

// RowError is the error of a row that does not decode as the table's type. It is an errdefs.ErrDataLoss.
type RowError struct {
	Item Item
	Err  error
}

// Error names the row.
func (e *RowError) Error() string {
	return fmt.Sprintf("row %s at revision %d: decode: %v", e.Item.Key, e.Item.Revision, e.Err)
}

// Unwrap returns errdefs.ErrDataLoss and the decoder's error.
func (e *RowError) Unwrap() []error { return []error{errdefs.ErrDataLoss, e.Err} }

// Decode reads one item of the table. The error is a *RowError.
func (t Table[T]) Decode(item Item) (Row[T], error) {
	row := Row[T]{Revision: item.Revision, Created: item.Created}
	id, ok := t.ID(item.Key)
	if !ok {
		return row, &RowError{Item: item, Err: invalid("key is not of table %s", t.prefix)}
	}
	row.ID = id
	dec := json.NewDecoder(bytes.NewReader(item.Value))
	if err := dec.Decode(&row.Value); err != nil {
		return row, &RowError{Item: item, Err: err}
	}
	if _, err := dec.Token(); err != io.EOF {
		return row, &RowError{Item: item, Err: invalid("something follows the value")}
	}
	return row, nil
}

// Get reads one row: errdefs.ErrNotFound when there is none, a *RowError when it does not decode.
func (t Table[T]) Get(ctx context.Context, s Store, id string) (Row[T], error) {
	item, err := s.Get(ctx, t.Key(id))
	if err != nil {
		return Row[T]{ID: id}, err
	}
	return t.Decode(item)
}

// Read reads the whole table at one revision.
func (t Table[T]) Read(ctx context.Context, s Store) (*Rows[T], error) {
	snap, err := s.Snapshot(ctx, t.prefix)
	if err != nil {
		return nil, err
	}
	return t.Rows(snap), nil
}

// Rows returns the table's rows of a snapshot, which may contain other tables too.
func (t Table[T]) Rows(snap *Snapshot) *Rows[T] {
	rows := &Rows[T]{Revision: snap.Revision}
	for _, item := range snap.Items {
		if _, ok := t.ID(item.Key); !ok {
			continue
		}
		row, err := t.Decode(item)
		if err != nil {
			rows.Broken = append(rows.Broken, err.(*RowError))
			continue
		}
		rows.List = append(rows.List, row)
	}
	return rows
}

// Rows is a table at one revision, in key order. A row that did not decode is in Broken and nowhere else: callers
// report it and leave it alone.
type Rows[T any] struct {
	Revision int64
	List     []Row[T]
	Broken   []*RowError
}

// All yields the readable rows' ids and values.
func (r *Rows[T]) All() iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		for _, row := range r.List {
			if !yield(row.ID, row.Value) {
				return
			}
		}
	}
}
