package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// TestWithdrawnInstanceCountsUntilTheKernelWasAsked: an instance that waits may be placed in the moment in which it is
// withdrawn. Until the withdrawal is done it takes its place under maximumOverCapacity.
func TestWithdrawnInstanceCountsUntilTheKernelWasAsked(t *testing.T) {
	for _, placed := range []bool{true, false} {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		minted := 0
		mint := func(app string) kernel.InstanceID {
			minted++
			return kernel.InstanceID(fmt.Sprint(marathon.GroupPrefix(app), minted))
		}
		version := func(v string, n int) *marathon.App {
			return &marathon.App{ID: "/web", Instances: n, Version: v,
				UpgradeStrategy: marathon.UpgradeStrategy{MinimumHealthCapacity: 1}}
		}
		s := NewState()
		s.Observe(kernel.Changes{Complete: true}, now)
		s.SetApp("/web", version("v1", 4))
		first := Decide(s, now, mint)
		if len(first.Launch) != 1 || len(first.Launch[0].Groups) != 4 {
			t.Fatalf("got %+v, want 4 launched", first.Launch)
		}
		to := version("v2", 8)
		s.Begin(NewDeployment("d", "v2", []Change{{App: "/web", From: s.Apps["/web"], To: to}},
			map[string]*marathon.App{"/web": to}, s.Mixed), nil)
		live := 0
		d := Decide(s, now, mint)
		for _, l := range d.Launch {
			live += len(l.Groups)
		}
		if len(d.Withdraw) != 4 || live != 5 { // 8 instances and one more, since none may be missing; 4 of them may be old
			t.Fatalf("got %d withdrawn and %d launched, want 4 and 5", len(d.Withdraw), live)
		}
		want := 8
		if !placed {
			s.Withdrawn(d.Withdraw, first.Launch[0].Groups)
		} else { // before they were withdrawn
			want = 5
			if stops := s.Withdrawn(d.Withdraw, nil); len(stops) != 4 {
				t.Errorf("got %d to be stopped, want the 4 that were placed", len(stops))
			}
			for _, id := range first.Launch[0].Groups {
				i := kernel.Instance{Assignment: kernel.Assignment{ID: id, Goal: kernel.GoalRun}, Framework: marathon.Framework,
					Owner: "/web", Version: "v1", Known: true,
					Statuses: []kernel.Status{{Instance: id, State: kernel.Running}}}
				s.Observe(kernel.Changes{Complete: true, Instances: []*kernel.Record{i.Record()}}, now)
			}
		}
		for _, l := range Decide(s, now, mint).Launch {
			live += len(l.Groups)
		}
		if live != want {
			t.Errorf("old ones placed %t: got %d of the new version launched, want %d", placed, live, want)
		}
	}
}
