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

// Every does f now and then until ctx ends. An error is told when it is a new one, and the next time is another chance.
func Every(ctx context.Context, d time.Duration, f func(context.Context) error, failed func(error)) {
	was := ""
	for Pause(ctx, d) {
		err := f(ctx)
		is := ""
		if err != nil {
			is = err.Error()
		}
		if is != was && err != nil {
			failed(err)
		}
		was = is
	}
}
