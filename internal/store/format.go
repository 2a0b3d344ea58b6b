package store

import (
	"context"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
)

// Format is the version of what rows mean. It grows when a program of before would misread what one of now writes;
// rows that only have more fields are no reason.
const Format = 1

// CheckFormat compares the store's format with this program's, and stamps a store that has none. A store that a newer
// program has written is refused with an errdefs.ErrFailedPrecondition: misreading it would end what runs.
func CheckFormat(ctx context.Context, s Store) error {
	stamp, err := Once(ctx, s, Key("format"), func() string { return strconv.Itoa(Format) })
	if err != nil {
		return fmt.Errorf("format of the store: %w", err)
	}
	return judgeFormat(stamp)
}

func judgeFormat(stamp string) error {
	n, err := strconv.Atoi(stamp)
	switch {
	case err != nil || n < 1:
		return fmt.Errorf("the store's format is %.40q, which no program wrote: restore it from a backup: %w", stamp,
			errdefs.ErrDataLoss)
	case n > Format:
		return fmt.Errorf("the store has format %d, this program knows format %d: a newer program wrote it, start that "+
			"one: %w",
			n, Format, errdefs.ErrFailedPrecondition)
	}
	return nil
}
