package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/archtest"
)

func TestTheHouseIsMeasured(t *testing.T) {
	room := &archtest.Package{Path: "internal/agent", Files: []*archtest.File{
		{Path: "internal/agent/run.go", Imports: []string{archtest.Module + "/internal/kernel"},
			Code: 3000, Widths: []int{120, 121, 200},
			Funcs: []archtest.Func{{Receiver: "Agent", Name: "Run", Line: 7, Lines: 61}, {Name: "New", Line: 80, Lines: 60}}},
		{Path: "internal/agent/run_test.go", Test: true, Code: 900, Widths: []int{300}},
	}}
	for range 41 {
		room.Files[0].Funcs = append(room.Files[0].Funcs, archtest.Func{Receiver: "group", Name: "a"})
	}
	child := &archtest.Package{Path: "internal/agent/runtimetest", Files: []*archtest.File{{Code: 500}}}
	story := &archtest.Package{Path: "test/stories", Files: []*archtest.File{{Code: 300}, {Test: true, Code: 300}}}
	flow := archtest.Flow{Path: "internal/agent", Calls: 50, Up: 6}
	h := measure([]*archtest.Package{room, child, story}, []archtest.Flow{flow})

	want := house{
		Packages: []row{{
			Path: "internal/agent", Files: 1, Code: 3000, Tests: 900, Ratio: 0.3, Wide: 2, Flow: &flow,
			Types: []typ{{"group", 41}}, Long: []fn{{"Agent.Run", "internal/agent/run.go:7", 61}},
		}, {Path: "internal/agent/runtimetest", Files: 1, Code: 500}},
		Rooms: []row{{
			Path: "internal/agent/...", Files: 2, Code: 3500, Tests: 900, Ratio: 900.0 / 3500, Wide: 2,
			Long: []fn{{"Agent.Run", "internal/agent/run.go:7", 61}},
		}},
		Arrows: []arrow{{"agent", "kernel", 1}},
		Total:  total{Code: 3500, Tests: 1500, Ratio: 1500.0 / 3500, WithSuites: 2000.0 / 3000, Calls: 50, Up: 6},
	}
	if d := cmp.Diff(want, h); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}

	var b strings.Builder
	if err := h.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"3000*   900  0.30    1    2    50    6  12*", "group 41*", "agent        kernel\n", "of which 6 run up, 12 %",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("%q is not in\n%s", line, b.String())
		}
	}
}
