package exit

import (
	"errors"
	"fmt"
	"testing"
)

func TestEveryErrorHasACode(t *testing.T) {
	for what, tc := range map[string]struct {
		err  error
		want int
	}{
		"none":               {nil, OK},
		"any":                {errors.New("disk"), Failed},
		"of the API":         {&Error{Code: Conflict}, Conflict},
		"wrapped":            {fmt.Errorf("cluster a: %w", &Error{Code: NotFound}), NotFound},
		"of usage":           {Usage("marina --help", "no %s", "verb"), BadUsage},
		"a program's own":    {Status(42), 42},
		"a program's, wraps": {fmt.Errorf("kubectl: %w", Status(7)), 7},
	} {
		if got := Code(tc.err); got != tc.want {
			t.Errorf("%s: code %d, want %d", what, got, tc.want)
		}
	}
}

func TestIsLooksThroughWhatWrapsAnError(t *testing.T) {
	err := fmt.Errorf("while waiting: %w", &Error{Code: Unreachable})
	if !Is(err, Unreachable) || Is(err, NotFound) || Is(nil, OK) || Is(errors.New("x"), Failed) {
		t.Errorf("%v: unreachable %v, not found %v; nil %v; another type %v, want the first alone", err,
			Is(err, Unreachable), Is(err, NotFound), Is(nil, OK), Is(errors.New("x"), Failed))
	}
}

func TestUsageSaysWhatIsWrongAndWhatToTry(t *testing.T) {
	err, ok := errors.AsType[*Error](Usage("marina app scale x 3", "%q is not a number", "many"))
	if !ok || err.Error() != `"many" is not a number` || err.Next != "marina app scale x 3" {
		t.Errorf("got %+v", err)
	}
	if got := Status(3).Error(); got != "exit code 3" {
		t.Errorf("a status says %q", got)
	}
}
