package sim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/invariant"
	"github.com/marinaos/marina/internal/sim/bug"
)

// within is after how many seeds a planted bug must be found, beginning with the seed that is kept.
const within = 250

// finders says which invariants may find a planted bug: those that it can break first.
var finders = map[bug.Bug][]invariant.ID{
	bug.SkipFence:            {invariant.I19Fenced},
	bug.SendBeforeCommit:     {invariant.I12IntentFirst},
	bug.LoseGroupsOnReturn:   {invariant.I7Converged},
	bug.AgentKeepsUnknown:    {invariant.I11NoOrphan},
	bug.LoadStaleRows:        {invariant.I14Exclusive},
	bug.LoadNoQuotas:         {invariant.I13Capacity},
	bug.AgentTakesLowerEpoch: {invariant.I19Fenced},
	bug.AckBeforeDurable:     {invariant.I8OneProcess},
	bug.ForgetQueue:          {invariant.I7Converged},
	bug.AgentForgetsRunning:  {invariant.I8OneProcess},
	bug.TrustUnknownOutcome:  {invariant.I12IntentFirst},
	bug.DoubleHostPort:       {invariant.I14Exclusive},
	bug.CountOnlyKnown:       {invariant.I5UpperBound},
	bug.NewsOutOfOrder:       {invariant.I10TerminalStays},
	bug.PrioritiesReversed:   {invariant.I41Preemption},
	bug.LoseDurable:          {invariant.I12IntentFirst},
	bug.ForgetBeforeAck:      {invariant.I7Converged},
	bug.DoubleAddress:        {invariant.I14Exclusive},
	bug.LoadSkipsChunk: {invariant.I5UpperBound, invariant.I7Converged, invariant.I13Capacity,
		invariant.I14Exclusive},
	bug.NewsLost:             {invariant.I7Converged},
	bug.EpochInSession:       {invariant.I19Fenced},
	bug.StopOnce:             {invariant.I7Converged, invariant.I11NoOrphan},
	bug.LoseRemoval:          {invariant.I42Removed},
	bug.SubnetKept:           {invariant.I42Removed},
	bug.BrakeCountsRemoved:   {invariant.I7Converged},
	bug.WaitForRemoved:       {invariant.I42Removed},
	bug.ReservationForgotten: {invariant.I42Removed},
	bug.LoadNoRemoved:        {invariant.I42Removed},
	bug.RemovedRunsOn:        {invariant.I7Converged, invariant.I11NoOrphan},
}

// TestPlantedBugIsFound begins with the seed that the bug's transcript keeps and goes on with others: a change of
// master or agents moves what happens in every seed, and is no reason to fail as long as the bug is found. With -update
// the transcripts are written anew.
func TestPlantedBugIsFound(t *testing.T) {
	for _, b := range bug.All() {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			from := uint64(1)
			if !*update {
				from = kept(t, b)
			}
			for s := from; s < from+within; s++ {
				r := Run(Config{Seed: s, Plant: b})
				if len(r.Violations) == 0 || !slices.Contains(finders[b], r.Violations[0].ID) {
					continue
				}
				if s != from && !*update {
					t.Logf("found at seed %d, the transcript keeps seed %d: write it anew with -update", s, from)
				}
				if *update {
					write(t, b, s)
				}
				if clean := Run(Config{Seed: s}); len(clean.Violations) > 0 || clean.Err != nil {
					t.Errorf("seed %d fails without the bug: %v %v", s, clean.Violations, clean.Err)
				}
				return
			}
			t.Errorf("not found by any of %v within %d seeds from %d", finders[b], within, from)
		})
	}
}

func TestEveryInvariantFindsABug(t *testing.T) {
	found := map[invariant.ID]bool{}
	for _, b := range bug.All() {
		for _, id := range finders[b] {
			found[id] = true
		}
	}
	for _, id := range []invariant.ID{invariant.I5UpperBound, invariant.I7Converged, invariant.I8OneProcess,
		invariant.I10TerminalStays, invariant.I11NoOrphan, invariant.I12IntentFirst, invariant.I13Capacity,
		invariant.I14Exclusive, invariant.I19Fenced, invariant.I41Preemption, invariant.I42Removed} {
		if !found[id] {
			t.Errorf("no planted bug shows that %s is judged", id)
		}
	}
}

func transcript(b bug.Bug) string { return filepath.Join("testdata", "planted", string(b)+".txt") }

// kept is the seed of a bug's transcript.
func kept(t *testing.T, b bug.Bug) uint64 {
	raw, err := os.ReadFile(transcript(b))
	if err != nil {
		t.Fatal(err)
	}
	var s uint64
	if _, err := fmt.Sscanf(string(raw), "seed: %d\n", &s); err != nil || s == 0 {
		t.Fatalf("transcript %s names no seed", transcript(b))
	}
	return s
}

// lastLines is how much of a trace a transcript keeps: what led to the violation is usually near.
const lastLines = 40

func write(t *testing.T, b bug.Bug, s uint64) {
	var out bytes.Buffer
	r := Run(Config{Seed: s, Plant: b, Trace: &out})
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	skipped := max(0, len(lines)-lastLines)
	text := fmt.Sprintf("seed: %d\nbug: %s\ninvariant: %s\n"+
		"replay: go test ./internal/sim -run TestSeed -seed=%d -plant=%s -v\n\n%d lines, then:\n%s\n",
		s, b, r.Violations[0].ID, s, b, skipped, strings.Join(lines[skipped:], "\n"))
	if err := os.MkdirAll(filepath.Dir(transcript(b)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(transcript(b), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
