package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/store"
)

// limit bounds each check. Stores under test have leases longer than this.
const limit = 30 * time.Second

// Faults are the faults that a store under test can inject into itself.
type Faults interface {
	// LoseReply makes the next Commit return store.ErrUnknownOutcome; it takes effect only if applied.
	LoseReply(applied bool)

	// CompactUnderWatch makes the next Watch find the history after its snapshot compacted away.
	CompactUnderWatch()
}

// Store is a store under test.
type Store interface {
	store.Store
	Faults
}

// Run checks the contract. open returns a fresh, empty store, which Run closes.
func Run(t *testing.T, open func(t *testing.T) Store) {
	checks := []struct {
		name string
		run  func(t *testing.T, ctx context.Context, s Store)
	}{
		{"GuardsDecide", guardsDecide},
		{"TransactionIsAllOrNothing", transactionIsAllOrNothing},
		{"RevisionsTellCreationFromChange", revisionsTellCreationFromChange},
		{"LimitsAreRefusedWhole", limitsAreRefusedWhole},
		{"CancelledContextSendsNothing", cancelledContextSendsNothing},
		{"LostReplyIsUnknown", lostReplyIsUnknown},
		{"TablesKeepToThemselves", tablesKeepToThemselves},
		{"SnapshotIsOneRevision", snapshotIsOneRevision},
		{"WatchMissesAndDoublesNothing", watchMissesAndDoublesNothing},
		{"WatchSeesItsPrefixOnly", watchSeesItsPrefixOnly},
		{"WatchEndsWhenHistoryIsGone", watchEndsWhenHistoryIsGone},
		{"WatchEndsUnderSlowReader", watchEndsUnderSlowReader},
		{"WatchEndsWhenClosed", watchEndsWhenClosed},
		{"OneLeadsAtATime", oneLeadsAtATime},
		{"DeposedLeaderIsFenced", deposedLeaderIsFenced},
		{"ResigningHandsOver", resigningHandsOver},
		{"CampaignEndsWithItsContext", campaignEndsWithItsContext},
		{"RegisterIsLinearizable", registerIsLinearizable},
		{"CloseEndsEverything", closeEndsEverything},
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			c.run(t, ctx, s)
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}
