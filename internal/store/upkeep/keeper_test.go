package upkeep

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/store"
)

const mib = 1 << 20

// shelf is a store of which a test says how full it is.
type shelf struct {
	st       store.Status
	err      error
	reclaims int
	live     int64 // bytes that a Reclaim leaves
	counts   map[string]int64
	written  int64

	history     int64 // bytes that a Compact frees
	compactions int
}

func (s *shelf) Compact(context.Context) error {
	s.compactions++
	s.st.InUse -= s.history
	s.history = 0
	return nil
}

func (s *shelf) Written() int64 { return s.written }

func (s *shelf) Status(context.Context) (store.Status, error) { return s.st, s.err }

func (s *shelf) Count(_ context.Context, prefix string) (int64, error) { return s.counts[prefix], nil }

func (s *shelf) Reclaim(context.Context) error {
	s.reclaims++
	s.st.Bytes, s.st.InUse, s.st.NoSpace = s.live, s.live, false
	return nil
}

// fill says how much of a quota of 1,000 MiB the database takes and how much of that is data.
func (s *shelf) fill(size, used int64) {
	s.st.Bytes, s.st.InUse, s.st.Quota = size*mib, used*mib, 1000*mib
}

func TestLevelsHaveOneWayUpAndALongerOneDown(t *testing.T) {
	k := New(Config{Store: &shelf{}, Shared: true})
	s := k.cfg.Store.(*shelf)
	for _, step := range []struct {
		used int64
		want Level
	}{{0, Roomy}, {699, Roomy}, {700, Tight}, {849, Tight}, {850, Full}, {800, Full}, {750, Full}, {749, Tight},
		{800, Tight}, {690, Roomy}, {990, Full}, {100, Roomy}} {
		s.fill(step.used, step.used)
		k.look(t.Context(), false)
		if k.level != step.want {
			t.Errorf("%d of 1000 MiB used: got %v, want %v", step.used, k.level, step.want)
		}
		if got := len(k.Alarms()); (got == 1) != (step.want != Roomy) {
			t.Errorf("%d of 1000 MiB used: %d alarms at level %v", step.used, got, step.want)
		}
		if err := k.Admit(); (err != nil) != (step.want == Full) {
			t.Errorf("%d of 1000 MiB used: Admit said %v at level %v", step.used, err, step.want)
		}
	}
}

func TestARefusalSaysHowFullItIsAndWhatCanBeDeleted(t *testing.T) {
	s := &shelf{counts: map[string]int64{"a/": 3, "v/": 1200}}
	k := New(Config{Store: s, Tables: []Table{{"a/", "apps"}, {"v/", "versions of apps"}, {"c/", "clusters"}}})
	s.fill(900, 900)
	k.look(t.Context(), false)
	err := k.Admit()
	if !errdefs.IsResourceExhausted(err) {
		t.Fatalf("got %v, want ErrResourceExhausted", err)
	}
	for _, text := range []string{err.Error(), k.Alarms()[0].String()} {
		if !strings.Contains(text, "900 of 1000 MiB") || !strings.Contains(text, "1200 versions of apps, 3 apps") ||
			strings.Contains(text, "clusters") {
			t.Errorf("got %q, want the numbers and what there is to delete, most first", text)
		}
	}
}

func TestFreeSpaceIsReclaimedWhenItIsWorthIt(t *testing.T) {
	for name, test := range map[string]struct {
		size, used int64
		noSpace    bool
		start      bool
		shared     bool
		want       int
	}{
		"small at the start":          {size: 300, used: 10, start: true},
		"half free at the start":      {size: 400, used: 200, start: true, want: 1},
		"full of data at the start":   {size: 900, used: 890, start: true},
		"half free while it is used":  {size: 800, used: 400},
		"about to refuse":             {size: 900, used: 400, want: 1},
		"about to refuse, all data":   {size: 950, used: 940},
		"refuses":                     {size: 1000, used: 999, noSpace: true, want: 1},
		"refuses, kept by others too": {size: 1000, used: 400, noSpace: true, shared: true},
	} {
		s := &shelf{live: 100 * mib}
		s.fill(test.size, test.used)
		s.st.NoSpace = test.noSpace
		k := New(Config{Store: s, Shared: test.shared})
		k.look(t.Context(), test.start)
		if s.reclaims != test.want {
			t.Errorf("%s: got %d, want %d", name, s.reclaims, test.want)
		}
		if test.want == 1 && k.level != Roomy {
			t.Errorf("%s: level %v after 90 %% are free again", name, k.level)
		}
	}
}

func TestAReclaimThatDoesNotHelpIsNotRepeatedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		s.fill(1000, 700)
		ctx, cancel := context.WithCancel(t.Context())
		k := New(Config{Store: &stuck{s}, Metrics: metrics.New("test")})
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(ReclaimPause + time.Minute) // in the bubble's time
		synctest.Wait()
		if s.reclaims != 2 {
			t.Errorf("got %d in %v, want 2", s.reclaims, ReclaimPause+time.Minute)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: got %v", err)
		}
	})
}

// stuck is a store that stays as it is.
type stuck struct{ *shelf }

func (s *stuck) Reclaim(context.Context) error { s.reclaims++; return fmt.Errorf("busy") }

func TestWhatIsDeletedFromAFullStoreCountsAtTheNextLook(t *testing.T) {
	s := &shelf{}
	s.fill(860, 860)
	k := New(Config{Store: s})
	k.look(t.Context(), false)
	if k.Admit() == nil || s.compactions != 1 {
		t.Fatalf("got %v and %d compactions", k.Admit(), s.compactions)
	}
	s.history = 200 * mib
	k.look(t.Context(), false)
	if err := k.Admit(); err != nil {
		t.Errorf("200 MiB were deleted: %v", err)
	}
	k.look(t.Context(), false)
	if s.compactions != 2 {
		t.Errorf("a store with room was compacted: %d times", s.compactions)
	}
	shared := &shelf{}
	shared.fill(860, 860)
	New(Config{Store: shared, Shared: true}).look(t.Context(), false)
	if shared.compactions != 0 {
		t.Error("somebody else's store was compacted")
	}
}

func TestAStoreThatDoesNotAnswerIsNoNews(t *testing.T) {
	s := &shelf{}
	s.fill(900, 900)
	k := New(Config{Store: s})
	k.look(t.Context(), false)
	s.err = errdefs.ErrUnavailable
	k.look(t.Context(), false)
	if k.level != Full || s.reclaims != 0 {
		t.Errorf("got level %v and %d reclaims, want the last word to stand", k.level, s.reclaims)
	}
}

// TestWhatWasWrittenSinceTheLastLookCounts: many writes between two looks fill the store no further than one.
func TestWhatWasWrittenSinceTheLastLookCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		s.fill(800, 800)
		k := New(Config{Store: s})
		k.look(t.Context(), false)
		for n := 0; k.Admit() == nil; n++ {
			if s.written += mib; n > 60 {
				t.Fatal("850 of 1000 MiB are used, and Admit takes more")
			}
		}
		if !strings.Contains(k.Admit().Error(), "850 of 1000 MiB") {
			t.Errorf("got %v", k.Admit())
		}
		if a := k.Alarms(); len(a) != 1 || !strings.Contains(a[0].Problem, "is refused, deletes go on") {
			t.Errorf("the alarm tells something else: %v", a)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		s.fill(800, 800)            // what was written was written over
		time.Sleep(2 * time.Second) // in the bubble's time
		synctest.Wait()
		if err := k.Admit(); err != nil {
			t.Errorf("two seconds later: %v", err)
		}
		cancel()
		<-done
	})
}
