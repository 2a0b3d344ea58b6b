package store_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

func TestAStoreIsStampedOnceAndANewerOneIsRefused(t *testing.T) {
	s := memory.New()
	for range 2 {
		if err := store.CheckFormat(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	item, err := s.Get(t.Context(), store.Key("format"))
	if err != nil || string(item.Value) != strconv.Itoa(store.Format) {
		t.Fatalf("got %q, %v, want the stamp of this program", item.Value, err)
	}
	for stamp, want := range map[string]struct {
		is   func(error) bool
		text string
	}{
		strconv.Itoa(store.Format + 1): {errdefs.IsFailedPrecondition, "newer program"},
		"":                             {errdefs.IsDataLoss, "backup"},
		"-1":                           {errdefs.IsDataLoss, "backup"},
		"one":                          {errdefs.IsDataLoss, "one"},
	} {
		if _, err := s.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(store.Key("format"), []byte(stamp))}}); err != nil {
			t.Fatal(err)
		}
		if err := store.CheckFormat(t.Context(), s); !want.is(err) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("format %q: got %v", stamp, err)
		}
	}
}

// TestAStampThatIsWrittenMeanwhileCounts: two masters of one new store start at once.
func TestAStampThatIsWrittenMeanwhileCounts(t *testing.T) {
	s := memory.New()
	done := make(chan error)
	for range 8 {
		go func() { done <- store.CheckFormat(t.Context(), s) }()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
