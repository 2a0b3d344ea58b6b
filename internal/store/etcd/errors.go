package etcd

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/marinaos/marina/internal/store"
)

// refusedErrors are etcd's errors for a transaction that did not reach its log, and their kinds. ErrNoSpace is not
// one: it is also the answer to the transaction that crossed the quota, which took effect.
var refusedErrors = []struct{ err, kind error }{
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

// writeError wraps the error of a transaction that was sent in its kind.
func writeError(ctx context.Context, err error) error {
	for _, r := range refusedErrors {
		if errors.Is(err, r.err) {
			return fmt.Errorf("%w: %w", r.kind, err)
		}
	}
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("%w: %w: %w", store.ErrUnknownOutcome, errdefs.ErrResourceExhausted, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnknownOutcome, cause(ctx, err))
}

// readError wraps the error of a read in its kind.
func readError(ctx context.Context, err error) error {
	for _, r := range refusedErrors {
		if errors.Is(err, r.err) {
			return fmt.Errorf("%w: %w", r.kind, err)
		}
	}
	if ctx.Err() != nil {
		return cause(ctx, err)
	}
	return fmt.Errorf("%w: %w", errdefs.ErrUnavailable, err)
}

// cause returns the cause of ctx if it has ended, else err: etcd's own text for that says less.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
