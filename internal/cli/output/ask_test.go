package output

import (
	"strings"
	"testing"
)

func TestOnlyTheNameItselfConfirmsADeletion(t *testing.T) {
	for in, want := range map[string]bool{"demo\n": true, " demo \n": true, "y\n": false, "\n": false, "": false, "demo2\n": false} {
		if err := typed(strings.NewReader(in), "demo"); (err == nil) != want {
			t.Errorf("typed %q: %v, want accepted %v", in, err, want)
		}
	}
}
