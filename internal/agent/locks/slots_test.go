package locks

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// Whoever is told to stop while a slot is free gets none, however the two meet: a slot that is taken and not used is
// lost to all.
func TestWhoeverIsToldToStopTakesNoSlot(t *testing.T) {
	s := make(Slots, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := s.Take(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		if len(s) != 0 {
			t.Fatal("a slot is taken that nobody will give back")
		}
	}
}

func TestNoMoreThanThereAreSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := make(Slots, 2)
		for range 2 {
			if err := s.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		third := make(chan error, 1)
		go func() { third <- s.Take(t.Context()) }()
		synctest.Wait()
		if len(third) != 0 {
			t.Error("a third got one of two")
		}
		s.Give()
		if err := <-third; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { third <- s.Take(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-third; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}
