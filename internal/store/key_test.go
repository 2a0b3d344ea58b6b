package store

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKeysAreTakenApartAsTheyWereBuilt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.OneOf(rapid.String(), rapid.StringMatching(`[a/%2 \x00F]{0,6}`)), 1, 4).Draw(t,
			"segments")
		key := Key(want[0], want[1:]...)
		got, err := Segments(key)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("Segments(%q) = %q, %v, want %q", key, got, err, want)
		}
	})
}

func TestPrefixMatchesOnlyWhatIsUnderIt(t *testing.T) {
	segments := rapid.SliceOfN(rapid.StringMatching(`[ab/%]{0,2}`), 1, 4)
	rapid.Check(t, func(t *rapid.T) {
		under, key := segments.Draw(t, "prefix"), segments.Draw(t, "key")
		got := strings.HasPrefix(Key(key[0], key[1:]...), Prefix(under[0], under[1:]...))
		want := len(key) > len(under) && slices.Equal(key[:len(under)], under)
		if got != want {
			t.Fatalf("prefix %q matches key %q: got %v, want %v", under, key, got, want)
		}
	})
}

func TestForeignKeysAreRefused(t *testing.T) {
	for _, key := range []string{"a%", "a%2", "a%zz", "a%41", "a%2f", "a b", "é"} {
		if got, err := Segments(key); err == nil {
			t.Errorf("Segments(%q) = %q, want an error", key, got)
		}
	}
}
