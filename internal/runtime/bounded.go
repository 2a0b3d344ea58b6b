package runtime

import (
	"context"
	"time"
)

// Bounded is a runtime whose calls end after a while, but for those that may take long: Pull, Exec and MountVolume,
// which their callers bound, and Exits.
func Bounded(r Runtime, limit time.Duration) Runtime { return bounded{r, limit} }

type bounded struct {
	Runtime
	limit time.Duration
}

func (b bounded) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.limit)
}

func (b bounded) Create(ctx context.Context, c Container) error {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Create(ctx, c)
}

func (b bounded) Start(ctx context.Context, id string) (Process, error) {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Start(ctx, id)
}

func (b bounded) Signal(ctx context.Context, id string, signal int) error {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Signal(ctx, id, signal)
}

func (b bounded) Remove(ctx context.Context, id string) error {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Remove(ctx, id)
}

func (b bounded) Containers(ctx context.Context) ([]Found, error) {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Containers(ctx)
}

func (b bounded) Stats(ctx context.Context, id string) (Stats, error) {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Stats(ctx, id)
}

func (b bounded) Layer(ctx context.Context, id string) (int64, error) {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Layer(ctx, id)
}

func (b bounded) Update(ctx context.Context, id string, l Limits) error {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Update(ctx, id, l)
}

func (b bounded) MountMemory(ctx context.Context, at string, size int64, owner uint32) error {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.MountMemory(ctx, at, size, owner)
}

func (b bounded) Unmount(ctx context.Context, at string) error {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Unmount(ctx, at)
}

func (b bounded) Mounted(ctx context.Context, below string) ([]string, error) {
	ctx, cancel := b.bound(ctx)
	defer cancel()
	return b.Runtime.Mounted(ctx, below)
}
