package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// settled has Settle commit changes once, and returns what it was answered.
func (c *counter) settled(list []*Change) (refused map[*Change]error, err error) {
	done := make(chan struct{})
	c.settle = func(ctx context.Context) (time.Time, error) {
		c.settle = nil
		refused, err = c.loop.CommitAll(ctx, list)
		close(done)
		return time.Time{}, err
	}
	_ = c.loop.Tell(c.t.Context(), func() {})
	<-done
	return refused, err
}

func change(c *counter, name string, bytes int) *Change {
	ch := &Change{}
	ch.Put(store.Put(store.Key("blobs", name), []byte(strings.Repeat("x", bytes))))
	ch.Then(func() { c.state[name]++ })
	return ch
}

func TestChangesOfOneDecisionAreWrittenInPortions(t *testing.T) {
	for _, test := range []struct{ changes, bytes int }{{40, 500_000}, {3 * store.MaxTxnOps, 10}} {
		run(t, func(t *testing.T, c *counter) {
			list := []*Change{}
			for n := range test.changes {
				list = append(list, change(c, fmt.Sprint(n), test.bytes))
			}
			refused, err := c.settled(list)
			if err != nil || len(refused) > 0 || len(c.state) != test.changes {
				t.Errorf("%d changes of %d bytes: got %v, %v, %d taken in", test.changes, test.bytes, err, refused, len(c.state))
			}
			c.mustGoOn()
		})
	}
}

func TestAChangeThatFitsNoTransactionIsRefusedAlone(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		large, many := change(c, "large", store.MaxValueBytes+1), change(c, "many", 1)
		for n := range store.MaxTxnOps {
			many.Put(store.Delete(store.Key("blobs", "gone", fmt.Sprint(n))))
		}
		refused, err := c.settled([]*Change{change(c, "a", 1), large, many, change(c, "b", 1)})
		if err != nil || len(refused) != 2 || !errdefs.IsInvalidArgument(refused[large]) ||
			!errdefs.IsInvalidArgument(refused[many]) {
			t.Errorf("got %v, %v, want large and many refused", err, refused)
		}
		if want := map[string]int{"a": 1, "b": 1}; !maps.Equal(c.state, want) {
			t.Errorf("taken in: got %v, want %v", c.state, want)
		}
		err = c.loop.Do(t.Context(), func(_ context.Context, ch *Change) error {
			*ch = *change(c, "asked", store.MaxValueBytes+1)
			return nil
		})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("a request that is too large: got %v, want ErrInvalidArgument", err)
		}
		c.mustGoOn()
	})
}

// TestPortionsThatWereWrittenAreTakenIn loses the reply to the second of three transactions.
func TestPortionsThatWereWrittenAreTakenIn(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		list := []*Change{}
		for n := range 24 {
			ch := change(c, fmt.Sprint(n), 1_000_000)
			ch.Then(func() {
				if n == 7 {
					c.store.LoseReply(false)
				}
			})
			list = append(list, ch)
		}
		if _, err := c.settled(list); !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("got %v, want ErrUnknownOutcome", err)
		}
		if got := len(c.state); got != 8 {
			t.Errorf("taken in: got %d, want the 8 of the first transaction", got)
		}
		if err := c.mustEnd(); !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("Run: got %v", err)
		}
	})
}

func TestAChangeWithoutRowsNeedsNoStore(t *testing.T) {
	run(t, func(t *testing.T, c *counter) {
		_ = c.store.Close()
		if err := c.loop.Do(t.Context(), func(_ context.Context, ch *Change) error {
			ch.Then(func() { c.state["a"] = 1 })
			return nil
		}); err != nil || c.state["a"] != 1 {
			t.Errorf("got %v, %d, want nil, 1", err, c.state["a"])
		}
	})
}

// TestPortionsAreTheChangesInTheirOrder commits drawn changes and compares with a map to which they are applied one
// by one. Each change must be whole: all of its rows have one revision, unless a later change wrote them again.
func TestPortionsAreTheChangesInTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := memory.New()
		lead, err := st.Campaign(context.Background(), "marina", "m1")
		if err != nil {
			t.Fatal(err)
		}
		l := New(Config{Name: "numbers", Store: st, Fence: lead.Fence()})
		want, order := map[string]string{}, []int{}
		list, wrote := []*Change{}, []map[string]string{}
		for n := range rapid.IntRange(0, 30).Draw(t, "changes") {
			ch, mine := &Change{}, map[string]string{}
			for range rapid.IntRange(0, 4).Draw(t, "rows") {
				key := store.Key("k", rapid.StringMatching(`[a-f]`).Draw(t, "key"))
				value := fmt.Sprint(n, strings.Repeat("x", rapid.SampledFrom([]int{0, 10, 900_000}).Draw(t, "bytes")))
				if rapid.Bool().Draw(t, "delete") {
					ch.Put(store.Delete(key))
					mine[key] = ""
				} else {
					ch.Put(store.Put(key, []byte(value)))
					mine[key] = value
				}
			}
			ch.Then(func() { order = append(order, n) })
			list, wrote = append(list, ch), append(wrote, mine)
			maps.Copy(want, mine)
		}
		if refused, err := l.CommitAll(context.Background(), list); err != nil || len(refused) > 0 {
			t.Fatalf("got %v, %v", refused, err)
		}
		if len(order) != len(list) || !slices.IsSorted(order) {
			t.Fatalf("taken in: got %v, want all %d in their order", order, len(list))
		}
		revision := map[string]int64{}
		for key, value := range want {
			item, err := st.Get(context.Background(), key)
			if value == "" != errdefs.IsNotFound(err) || string(item.Value) != value {
				t.Fatalf("%s: got %.10q %v, want %.10q", key, item.Value, err, value)
			}
			revision[key] = item.Revision
		}
		for n, mine := range wrote {
			at := int64(0)
			for key, value := range mine {
				if value != "" && want[key] == value {
					if at != 0 && at != revision[key] {
						t.Fatalf("change %d is torn: revisions %d and %d", n, at, revision[key])
					}
					at = revision[key]
				}
			}
		}
	})
}
