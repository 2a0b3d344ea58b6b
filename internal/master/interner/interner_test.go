package interner

import (
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/marinaos/marina/internal/kernel"
)

func TestAgentsThatAreAlikeShareWhatTheySay(t *testing.T) {
	var k Interner
	say := func(rack string) kernel.Agent {
		a := kernel.Agent{ID: "a", Zone: strings.Clone("eu-1"), Version: strings.Clone("1.0"),
			Attributes: map[string]string{"rack": rack}}
		was := a
		was.Attributes = maps.Clone(a.Attributes)
		if k.Agent(&a); !reflect.DeepEqual(a, was) {
			t.Fatalf("got %+v, want what was said: %+v", a, was)
		}
		return a
	}
	one, two, other := say("r1"), say("r1"), say("r2")
	if unsafe.StringData(one.Zone) != unsafe.StringData(other.Zone) ||
		reflect.ValueOf(one.Attributes).Pointer() != reflect.ValueOf(two.Attributes).Pointer() {
		t.Error("what agents have in common is in memory more than once")
	}
	for n := range 3 * maxInterned {
		say(fmt.Sprint(n))
	}
	if len(k.sets) > maxInterned || len(k.texts) > maxInterned {
		t.Errorf("%d sets and %d texts are remembered, at most %d should be", len(k.sets), len(k.texts), maxInterned)
	}
}
