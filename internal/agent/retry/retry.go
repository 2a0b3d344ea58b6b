package retry

import (
	"context"
	"time"
)

// First and Last are the waits between attempts that fail, unless there is a reason for others: they double in between.
const (
	First = 100 * time.Millisecond
	Last  = 10 * time.Second
)

// Pause waits for d and reports whether ctx still goes on.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Until does f again and again, and tells each error, until f succeeds or ctx ends; it reports which. Errors after ctx
// has ended are not told: they are of its end.
func Until(ctx context.Context, last time.Duration, f func() error, failed func(error)) bool {
	for wait := min(First, last); ; wait = min(2*wait, last) {
		err := f()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		failed(err)
		if !Pause(ctx, wait) {
			return false
		}
	}
}
