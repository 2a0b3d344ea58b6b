package storetest

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

func TestRegisterModelTellsRightFromWrong(t *testing.T) {
	write := func(value string, outcome int, call, end int64) porcupine.Operation {
		return porcupine.Operation{Input: access{kind: "write", value: value}, Output: outcome, Call: call, Return: end}
	}
	read := func(value string, call, end int64) porcupine.Operation {
		return porcupine.Operation{Input: access{kind: "read", value: value}, Output: done, Call: call, Return: end}
	}
	swap := func(old, value string, outcome int, call, end int64) porcupine.Operation {
		return porcupine.Operation{Input: access{kind: "swap", old: old, value: value}, Output: outcome, Call: call,
			Return: end}
	}
	cases := []struct {
		name    string
		history []porcupine.Operation
		want    bool
	}{
		{"in order", []porcupine.Operation{write("a", done, 1, 2), read("a", 3, 4), swap("a", "b", done, 5, 6),
			read("b", 7, 8)}, true},
		{"unknown write seen later", []porcupine.Operation{write("a", unknown, 1, math.MaxInt64), read("", 2, 3),
			read("a", 4, 5)}, true},
		{"acknowledged write lost", []porcupine.Operation{write("a", done, 1, 2), read("", 3, 4)}, false},
		{"stale read", []porcupine.Operation{write("a", done, 1, 2), write("b", done, 3, 4), read("a", 5, 6)}, false},
		{"unknown write comes and goes", []porcupine.Operation{write("a", unknown, 1, math.MaxInt64), read("a", 2, 3),
			read("", 4, 5)}, false},
		{"swap succeeds on the wrong value", []porcupine.Operation{write("a", done, 1, 2), swap("x", "b", done, 3, 4)},
			false},
		{"swap refused on the right value", []porcupine.Operation{write("a", done, 1, 2), swap("a", "b", refused, 3, 4)},
			false},
	}
	for _, c := range cases {
		if got := porcupine.CheckOperations(register.ToModel(), c.history); got != c.want {
			t.Errorf("%s: got linearizable %v, want %v", c.name, got, c.want)
		}
	}
}
