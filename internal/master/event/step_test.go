package event

import (
	"reflect"
	"slices"
	"testing"
)

func TestStepsCutsWherePlacementsAreJudgedAnew(t *testing.T) {
	var got [][]Event
	events := []Event{Tick{}, Tick{}, AgentUp{Session: 1}, SetQuota{Remove: true}, Launch{}, Stop{}, AgentDown{},
		SetQuota{}}
	for part := range Steps(events) {
		got = append(got, slices.Clone(part))
	}
	want := [][]Event{{Tick{}, Tick{}}, {AgentUp{Session: 1}}, {SetQuota{Remove: true}}, {Launch{}, Stop{}, AgentDown{}},
		{SetQuota{}}}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("steps: got %v, want %v", got, want)
	}
	for range Steps(nil) {
		t.Error("no events: got a step")
	}
}
