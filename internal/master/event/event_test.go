package event

import (
	"reflect"
	"testing"
)

// requests are an event of each kind that is answered.
var requests = []Event{Launch{}, Withdraw{}, Stop{}, Forget{}, Resize{}, Release{}, Expose{}, SetQuota{}, Reserve{},
	RemoveAgent{},
	SetPool{}}

func TestRequestsAreNumberedAndOthersLeftAlone(t *testing.T) {
	for _, ev := range requests {
		got := Numbered(ev, 7)
		if n := reflect.ValueOf(got).FieldByName("Request").Interface(); n != RequestID(7) ||
			reflect.TypeOf(got) != reflect.TypeOf(ev) {
			t.Errorf("%T: got %T with number %v, want 7", ev, got, n)
		}
	}
	for _, ev := range []Event{AgentUp{Session: 1}, Frame{Session: 1}, AgentDown{Session: 1}, Tick{}} {
		if got := Numbered(ev, 7); !reflect.DeepEqual(got, ev) {
			t.Errorf("%T: got %+v, want it as it was", ev, got)
		}
	}
}

// TestStepsKeepAllEventsInOrder cuts every pair of events: nothing is lost, and what stands alone is alone.
func TestStepsKeepAllEventsInOrder(t *testing.T) {
	all := append([]Event{AgentUp{}, Frame{}, AgentDown{}, Tick{}}, requests...)
	for _, a := range all {
		for _, b := range all {
			var got []Event
			for part := range Steps([]Event{a, b}) {
				got = append(got, part...)
				if len(part) > 1 && (alone(a) || alone(b)) {
					t.Errorf("%T and %T are one step", a, b)
				}
			}
			if !reflect.DeepEqual(got, []Event{a, b}) {
				t.Errorf("%T, %T: got %v", a, b, got)
			}
		}
	}
}
