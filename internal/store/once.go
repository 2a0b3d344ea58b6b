package store

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
)

// Once returns the value of a row that is written once and then stays: what is there, or else what draw says, unless
// somebody else is quicker.
func Once(ctx context.Context, s Store, key string, draw func() string) (string, error) {
	for {
		item, err := s.Get(ctx, key)
		if err == nil {
			return string(item.Value), nil
		}
		if !errdefs.IsNotFound(err) {
			return "", err
		}
		value := draw()
		_, err = s.Commit(ctx, Txn{Guards: []Guard{Absent(key)}, Ops: []Op{Put(key, []byte(value))}})
		if err == nil {
			return value, nil
		}
		if !errors.Is(err, ErrConflict) {
			return "", err
		}
	}
}
