package retry

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAttemptsComeLaterAndLaterUpToALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		var told int
		ok := Until(t.Context(), 300*time.Millisecond, func() error {
			at = append(at, time.Since(began).Round(time.Millisecond))
			if len(at) < 5 {
				return errors.New("not yet")
			}
			return nil
		}, func(error) { told++ })
		want := []time.Duration{0, 100, 300, 600, 900}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !ok || told != 4 || !slices.Equal(at, want) {
			t.Errorf("got %v after attempts at %v with %d errors told, want %v and 4", ok, at, told, want)
		}
	})
}

func TestWhatIsToldToEndEndsAtOnceAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if Until(ctx, time.Hour, func() error { return errors.New("never") }, func(error) {}) {
			t.Error("what never succeeded is told as done")
		}
		told := 0
		if Until(ctx, time.Hour, func() error { return ctx.Err() }, func(error) { told++ }) || told != 0 {
			t.Errorf("%d errors told of what only ended", told)
		}
		began := time.Now()
		if Pause(ctx, time.Hour) || time.Since(began) != 0 {
			t.Error("a pause went on after its end")
		}
	})
}

func TestWhatIsDoneNowAndThenTellsAnErrorOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		outcomes := []error{nil, errors.New("a"), errors.New("a"), errors.New("b"), errors.New("a"), nil, errors.New("a")}
		times := 0
		var told []string
		Every(ctx, time.Second, func(context.Context) error {
			times++
			return outcomes[min(times, len(outcomes))-1]
		}, func(err error) { told = append(told, err.Error()) })
		if want := []string{"a", "b", "a", "a"}; times != 10 || !slices.Equal(told, want) {
			t.Errorf("done %d times, told %q, want 10 and %q", times, told, want)
		}
	})
}
