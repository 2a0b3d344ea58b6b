package runtime

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// hanging is a runtime that answers no call before its context ends.
type hanging struct{ Runtime }

func (hanging) wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func (h hanging) Pull(ctx context.Context, _ string, _ bool) error        { return h.wait(ctx) }
func (h hanging) Create(ctx context.Context, _ Container) error           { return h.wait(ctx) }
func (h hanging) Signal(ctx context.Context, _ string, _ int) error       { return h.wait(ctx) }
func (h hanging) Remove(ctx context.Context, _ string) error              { return h.wait(ctx) }
func (h hanging) Update(ctx context.Context, _ string, _ Limits) error    { return h.wait(ctx) }
func (h hanging) Unmount(ctx context.Context, _ string) error             { return h.wait(ctx) }
func (h hanging) Containers(ctx context.Context) ([]Found, error)         { return nil, h.wait(ctx) }
func (h hanging) Stats(ctx context.Context, _ string) (Stats, error)      { return Stats{}, h.wait(ctx) }
func (h hanging) Layer(ctx context.Context, _ string) (int64, error)      { return 0, h.wait(ctx) }
func (h hanging) Start(ctx context.Context, _ string) (Process, error)    { return Process{}, h.wait(ctx) }
func (h hanging) Mounted(ctx context.Context, _ string) ([]string, error) { return nil, h.wait(ctx) }
func (h hanging) Exec(ctx context.Context, _ string, _ Exec) (int, error) { return 0, h.wait(ctx) }

func (h hanging) MountVolume(ctx context.Context, _, _ string, _ int64) error { return h.wait(ctx) }

func (h hanging) MountMemory(ctx context.Context, _ string, _ int64, _ uint32) error {
	return h.wait(ctx)
}

func TestCallsEndAfterAWhileUnlessTheyMayTakeLong(t *testing.T) {
	const limit, long = time.Second, time.Hour
	r := Bounded(hanging{}, limit)
	for name, c := range map[string]struct {
		call func(ctx context.Context) error
		want time.Duration
	}{
		"Create":      {func(ctx context.Context) error { return r.Create(ctx, Container{}) }, limit},
		"Start":       {func(ctx context.Context) error { _, err := r.Start(ctx, ""); return err }, limit},
		"Signal":      {func(ctx context.Context) error { return r.Signal(ctx, "", 15) }, limit},
		"Remove":      {func(ctx context.Context) error { return r.Remove(ctx, "") }, limit},
		"Containers":  {func(ctx context.Context) error { _, err := r.Containers(ctx); return err }, limit},
		"Stats":       {func(ctx context.Context) error { _, err := r.Stats(ctx, ""); return err }, limit},
		"Layer":       {func(ctx context.Context) error { _, err := r.Layer(ctx, ""); return err }, limit},
		"Update":      {func(ctx context.Context) error { return r.Update(ctx, "", Limits{}) }, limit},
		"MountMemory": {func(ctx context.Context) error { return r.MountMemory(ctx, "", 0, 0) }, limit},
		"Unmount":     {func(ctx context.Context) error { return r.Unmount(ctx, "") }, limit},
		"Mounted":     {func(ctx context.Context) error { _, err := r.Mounted(ctx, ""); return err }, limit},
		"Pull":        {func(ctx context.Context) error { return r.Pull(ctx, "", false) }, long},
		"Exec":        {func(ctx context.Context) error { _, err := r.Exec(ctx, "", Exec{}); return err }, long},
		"MountVolume": {func(ctx context.Context) error { return r.MountVolume(ctx, "", "", 0) }, long},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), long)
			defer cancel()
			began := time.Now()
			if err := c.call(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != c.want {
				t.Errorf("%s: %v after %v, want its end after %v", name, err, time.Since(began), c.want)
			}
		})
	}
}
