package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/containerd/errdefs"
	"github.com/marinaos/marina/internal/store"
)

// access is one operation on the register and its result. Values are never used twice.
type access struct {
	kind  string // "read", "write", "swap"
	old   string // what swap expects, "" for absent
	value string // what write and swap put, what read got
}

// Outcomes of an access.
const (
	done = iota
	refused
	unknown
)

// register is the sequential specification: state is the value, "" for absent.
var register = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, input, output any) []any {
		a, outcome := input.(access), output.(int)
		holds := a.kind == "write" || a.old == state.(string)
		switch {
		case a.kind == "read" && a.value == state.(string):
			return []any{state}
		case a.kind == "read":
			return nil
		case outcome == unknown && holds:
			return []any{state, a.value}
		case outcome == unknown:
			return []any{state}
		case outcome == done && holds:
			return []any{a.value}
		case outcome == refused && !holds:
			return []any{state}
		}
		return nil
	},
	Equal: func(a, b any) bool { return a == b },
}

// registerIsLinearizable lets clients read, write and swap one row while some replies are lost, and checks the
// history with porcupine.
func registerIsLinearizable(t *testing.T, ctx context.Context, s Store) {
	const clients, accesses = 4, 25
	var clock atomic.Int64
	var mu sync.Mutex
	var history []porcupine.Operation
	counts := map[int]int{}
	var wg sync.WaitGroup
	for c := range clients {
		random := rand.New(rand.NewPCG(uint64(c), 1))
		wg.Go(func() {
			var seen store.Item
			for n := range accesses {
				if random.IntN(12) == 0 {
					s.LoseReply(random.IntN(2) == 0)
				}
				a := access{kind: []string{"read", "write", "swap", "swap"}[random.IntN(4)], old: string(seen.Value),
					value: fmt.Sprintf("%d.%d", c, n)}
				call := clock.Add(1)
				outcome, err := perform(ctx, s, &a, &seen)
				end := clock.Add(1)
				if err != nil {
					t.Errorf("%s: %v", a.kind, err)
					return
				}
				if outcome == unknown {
					end = math.MaxInt64
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: c, Input: a, Output: outcome, Call: call, Return: end})
				counts[outcome]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if counts[done] < clients*accesses/4 || counts[unknown] == 0 {
		t.Fatalf("history has %d done and %d unknown accesses: too few to judge", counts[done], counts[unknown])
	}
	if got := porcupine.CheckOperationsTimeout(register.ToModel(), history, limit); got != porcupine.Ok {
		t.Errorf("history of %d accesses: got %v, want it linearizable:\n%+v", len(history), got, history)
	}
}

// perform performs a and keeps in seen the row that was read or written. Swaps expect that value.
func perform(ctx context.Context, s store.Store, a *access, seen *store.Item) (int, error) {
	if a.kind == "read" {
		it, err := s.Get(ctx, "register")
		if err != nil && !errdefs.IsNotFound(err) {
			return 0, err
		}
		*seen, a.value = it, string(it.Value)
		return done, nil
	}
	txn := store.Txn{Ops: []store.Op{store.Put("register", []byte(a.value))}}
	if a.kind == "swap" {
		guard := store.Unchanged("register", seen.Revision)
		if seen.Revision == 0 {
			guard = store.Absent("register")
		}
		txn.Guards = []store.Guard{guard}
	}
	rev, err := s.Commit(ctx, txn)
	switch {
	case err == nil:
		*seen = store.Item{Value: []byte(a.value), Revision: rev}
		return done, nil
	case errors.Is(err, store.ErrConflict):
		return refused, nil
	case errors.Is(err, store.ErrUnknownOutcome):
		return unknown, nil
	}
	return 0, err
}
