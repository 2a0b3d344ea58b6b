package sim

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/sim/bug"
	"github.com/marinaos/marina/internal/sim/rare"
)

var (
	seed   = flag.Uint64("seed", 0, "simulate this seed alone and print its trace (with -run TestSeed)")
	seeds  = flag.Uint64("seeds", 1000, "how many seeds TestSeeds simulates")
	from   = flag.Uint64("from", 1, "the first of them")
	hours  = flag.Float64("hours", 0, "simulate seeds until they come to so many agent-hours, instead")
	plant  = flag.String("plant", "", "the bug to plant with -seed")
	update = flag.Bool("update", false, "write testdata/planted anew")
)

// TestSeed replays one seed: go test ./internal/sim -run TestSeed -seed=N -v.
func TestSeed(t *testing.T) {
	if *seed == 0 {
		t.Skip("give -seed=N")
	}
	r := Run(Config{Seed: *seed, Plant: bug.Bug(*plant), Trace: os.Stdout})
	t.Logf("seed %d: %d events, %v simulated, hash %016x", r.Seed, r.Events, r.Simulated.Round(time.Millisecond), r.Hash)
	r.report(t)
}

// report fails the test if the simulation did not hold, and says how to see it again.
func (r Result) report(t *testing.T) {
	t.Helper()
	for _, v := range r.Violations {
		t.Errorf("seed %d: %v", r.Seed, v)
	}
	if r.Err != nil {
		t.Errorf("seed %d: %v", r.Seed, r.Err)
	}
	if t.Failed() {
		t.Logf("replay: go test ./internal/sim -run TestSeed -seed=%d -v", r.Seed)
	}
}

// sum adds up a batch of seeds.
type sum struct {
	mu     sync.Mutex
	counts // guarded by mu
}

type counts struct {
	seeds     int
	events    int
	simulated time.Duration
	agents    float64 // hours
}

// add counts one more, and returns what all come to.
func (s *sum) add(r Result) counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeds++
	s.events += r.Events
	s.simulated += r.Simulated
	s.agents += r.AgentTime.Hours()
	return s.counts
}

func TestSeeds(t *testing.T) {
	if *seed != 0 {
		t.Skip("one seed was asked for")
	}
	last := *from + *seeds - 1
	if testing.Short() {
		last = *from + min(*seeds, 100) - 1
	}
	if *hours > 0 {
		last = math.MaxUint64
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // worlds are small and short-lived
	some, next, began := rare.New(), atomic.Uint64{}, time.Now()
	next.Store(*from - 1)
	var total sum
	t.Run("batch", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for s := next.Add(1); s <= last && !t.Failed(); s = next.Add(1) {
					r := Run(Config{Seed: s, Some: some})
					if all := total.add(r); *hours > 0 {
						if all.seeds%5000 == 0 {
							fmt.Fprintf(os.Stderr, "%d seeds, %.0f of %.0f agent-hours, %.0f s\n",
								all.seeds, all.agents, *hours, time.Since(began).Seconds())
						}
						if all.agents >= *hours {
							return
						}
					}
					r.report(t)
					if r.Events < 2000 {
						t.Errorf("seed %d: %d events, want at least 2000", s, r.Events)
					}
				}
			})
		}
	})
	took := time.Since(began).Seconds()
	t.Logf("%d seeds, %d events, %.1f hours simulated of 50 agents in %.1f s: %.0f events/s, %.0f agent-hours/s",
		total.seeds, total.events, total.simulated.Hours(), took, float64(total.events)/took, total.agents/took)
	for name, count := range some.All() {
		t.Logf("%9d  %s", count, name)
	}
	if never := some.Never(); len(never) > 0 && total.seeds >= 500 && !t.Failed() {
		t.Errorf("never reached: %q", never)
	}
}

func TestOneSeedGivesOneTrace(t *testing.T) {
	for s := uint64(1); s <= 6; s++ {
		var a, b bytes.Buffer
		first, second := Run(Config{Seed: s, Trace: &a}), Run(Config{Seed: s, Trace: &b})
		if first.Hash != second.Hash || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("seed %d: got traces %016x of %d events and %016x of %d, want the same",
				s, first.Hash, first.Events, second.Hash, second.Events)
		}
	}
	if Run(Config{Seed: 1}).Hash == Run(Config{Seed: 2}).Hash {
		t.Error("seeds 1 and 2 gave the same trace")
	}
}
