package locks

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

func TestOneHoldsANameAtATimeAndNothingIsLeft(t *testing.T) {
	var table Table
	counts := make([]int, 4)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			name := i % len(counts)
			defer table.Lock(strconv.Itoa(name))()
			counts[name]++ // the race detector judges
		})
	}
	wg.Wait()
	for name, n := range counts {
		if n != 50 {
			t.Errorf("name %d: counted %d, want 50", name, n)
		}
	}
	if n := table.Len(); n != 0 {
		t.Errorf("%d names are left, want none", n)
	}
}

func TestOtherNamesDoNotWait(t *testing.T) {
	var table Table
	defer table.Lock("a")()
	table.Lock("b")()
	if n := table.Len(); n != 1 {
		t.Errorf("%d names are held, want 1", n)
	}
}

func TestReadersShareAndAWriterWaits(t *testing.T) {
	var table Table
	first, second := table.RLock("a"), table.RLock("a")
	var written atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer table.Lock("a")()
		written.Store(true)
	}()
	first()
	if written.Load() {
		t.Error("a writer did not wait for the second reader")
	}
	second()
	<-done
	if n := table.Len(); n != 0 {
		t.Errorf("%d names are left, want none", n)
	}
}

func TestAWaiterKeepsTheLockItWaitsFor(t *testing.T) {
	var table Table
	unlock := table.Lock("a")
	done := make(chan struct{})
	go func() {
		defer close(done)
		table.Lock("a")()
	}()
	for waiting := false; !waiting; { // until the other is in the queue: it is counted before it waits
		table.mu.Lock()
		waiting = table.m["a"].users == 2
		table.mu.Unlock()
	}
	unlock()
	<-done
	if n := table.Len(); n != 0 {
		t.Errorf("%d names are left, want none", n)
	}
}
