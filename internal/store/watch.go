package store

import (
	"context"
	"fmt"
	"sync"
)

// MaxWatchBacklog limits, in bytes, how far a watch's reader may fall behind before the watch ends with
// ErrWatchAgain. A change counts its key, its value and changeOverhead.
const MaxWatchBacklog = 32 << 20

// changeOverhead is the memory, in bytes, of a queued change beyond its key and value, roughly.
const changeOverhead = 128

// Change is one row that was put or deleted. A deleted one has only its key and the revision of the deletion.
type Change struct {
	Item
	Deleted bool
}

// Batch has all changes of one transaction under a watch's prefix, in the transaction's order.
type Batch struct {
	Revision int64
	Changes  []Change
}

// Watch is a snapshot and the changes since. One goroutine reads it; Close may be called from any.
type Watch struct {
	snapshot *Snapshot
	feed     *Feed
	close    func()
}

// Snapshot returns the snapshot that the watch began with. Every batch has a higher revision.
func (w *Watch) Snapshot() *Snapshot { return w.snapshot }

// Next blocks until the next batch. Once the watch has ended, the error is ErrWatchAgain or ErrClosed. When ctx ends,
// the error is its cause and the watch goes on.
func (w *Watch) Next(ctx context.Context) (Batch, error) {
	for {
		if b, ok, err := w.TryNext(); ok || err != nil {
			return b, err
		}
		select {
		case <-w.feed.wake:
		case <-ctx.Done():
			return Batch{}, context.Cause(ctx)
		}
	}
}

// TryNext is Next without blocking: ok is false when there is nothing new.
func (w *Watch) TryNext() (b Batch, ok bool, err error) { return w.feed.pop() }

// Close ends the watch and waits until nothing feeds it any more. A reader inside Next gets ErrClosed.
func (w *Watch) Close() {
	w.feed.End(ErrClosed)
	w.close()
}

// Feed is the writing end of a watch, for implementations of Store.
type Feed struct {
	wake chan struct{} // holds a token when there may be something new; never closed

	mu     sync.Mutex // a leaf: nothing is called under it
	queue  []Batch    // guarded by mu
	queued int        // bytes in queue; guarded by mu
	err    error      // why the feed ended; guarded by mu
}

// NewFeed returns an empty feed.
func NewFeed() *Feed { return &Feed{wake: make(chan struct{}, 1)} }

// NewWatch joins a snapshot with the feed of later changes. Watch.Close calls close, which may be called twice.
func NewWatch(snapshot *Snapshot, feed *Feed, close func()) *Watch {
	return &Watch{snapshot: snapshot, feed: feed, close: close}
}

// Push appends a batch without ever blocking: if the reader is too far behind, the feed ends with ErrWatchAgain. It
// reports false once the feed has ended.
func (f *Feed) Push(b Batch) bool {
	size := 0
	for _, c := range b.Changes {
		size += len(c.Key) + len(c.Value) + changeOverhead
	}
	f.mu.Lock()
	if f.err == nil && f.queued+size > MaxWatchBacklog && len(f.queue) > 0 {
		f.err = fmt.Errorf("the reader is %d bytes behind: %w", f.queued+size, ErrWatchAgain)
		f.queue = nil
	}
	live := f.err == nil
	if live {
		f.queue = append(f.queue, b)
		f.queued += size
	}
	f.mu.Unlock()
	f.signal()
	return live
}

// End ends the feed: queued batches are dropped and the reader gets err. Only the first call counts.
func (f *Feed) End(err error) {
	f.mu.Lock()
	if f.err == nil {
		f.err, f.queue = err, nil
	}
	f.mu.Unlock()
	f.signal()
}

func (f *Feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *Feed) pop() (Batch, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return Batch{}, false, f.err
	}
	if len(f.queue) == 0 {
		return Batch{}, false, nil
	}
	b := f.queue[0]
	f.queue[0] = Batch{}
	f.queue = f.queue[1:]
	for _, c := range b.Changes {
		f.queued -= len(c.Key) + len(c.Value) + changeOverhead
	}
	return b, true, nil
}
