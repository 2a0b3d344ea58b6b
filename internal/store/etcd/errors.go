package etcd

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/marinaos/marina/internal/store"
)

// refused are the answers that etcd gives before a transaction reaches its log, and their kinds. ErrNoSpace is not one: it is
// also the answer to the transaction that crossed the quota, which took effect.
var refused = []struct{ err, kind error }{
	{rpctypes.ErrEmptyKey, errdefs.ErrInvalidArgument},
	{rpctypes.ErrDuplicateKey, errdefs.ErrInvalidArgument},
	{rpctypes.ErrTooManyOps, errTooLarge},
	{rpctypes.ErrRequestTooLarge, errTooLarge},
	{rpctypes.ErrTooManyRequests, errdefs.ErrUnavailable},
	{rpctypes.ErrPermissionDenied, errdefs.ErrPermissionDenied},
	{rpctypes.ErrUserEmpty, errdefs.ErrUnauthenticated},
	{rpctypes.ErrAuthFailed, errdefs.ErrUnauthenticated},
	{rpctypes.ErrInvalidAuthToken, errdefs.ErrUnauthenticated},
}

var errTooLarge = fmt.Errorf("start the members with --max-txn-ops=%d --max-request-bytes=%d: %w",
	store.MaxTxnOps, maxRequestBytes, errdefs.ErrInvalidArgument)

// writeError gives the error of a transaction that was sent its kind.
func writeError(ctx context.Context, err error) error {
	for _, r := range refused {
		if errors.Is(err, r.err) {
			return fmt.Errorf("%w: %w", r.kind, err)
		}
	}
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("%w: %w: %w", store.ErrUnknownOutcome, errdefs.ErrResourceExhausted, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnknownOutcome, because(ctx, err))
}

// readError gives the error of a read its kind.
func readError(ctx context.Context, err error) error {
	for _, r := range refused {
		if errors.Is(err, r.err) {
			return fmt.Errorf("%w: %w", r.kind, err)
		}
	}
	if ctx.Err() != nil {
		return because(ctx, err)
	}
	return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
}

// because prefers why ctx ended over etcd's words for it.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
