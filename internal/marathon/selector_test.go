package marathon

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func matches(t *testing.T, text string, labels map[string]string) bool {
	t.Helper()
	list, err := ParseSelector(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return !slices.ContainsFunc(list, func(s Selector) bool { return !s.Matches(labels) })
}

func TestSelectorsMeanWhatMarathonsDo(t *testing.T) {
	labels := map[string]string{"tier": "web", "env": "prod", "a b": "x,y", "empty": ""}
	for text, want := range map[string]bool{
		"tier": true, "nothing": false, "tier==web": true, "tier == api": false, "tier!=api": true, "tier != web": false,
		"nothing!=x":         false,
		"tier in (web, api)": true, "tier in (api)": false, "tier notin (api,db)": true, "tier notin(web)": false,
		"nothing notin (x)":   false,
		"tier==web,env==prod": true, "tier==web , env==dev": false, `a\ b==x\,y`: true, " tier , env ": true,
	} {
		if got := matches(t, text, labels); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

func TestSelectorsThatAreNoneAreRefused(t *testing.T) {
	for _, text := range []string{"", " ", ",", "a,", "a==", "==b", "a=b", "a in", "a in b", "a in (", "a in (b",
		"a in (b,)", "a like b", "a b", "a==b c", "(a)"} {
		if got, err := ParseSelector(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

// TestATermIsReadAsItWasWritten writes terms of any text, escaped.
func TestATermIsReadAsItWasWritten(t *testing.T) {
	escape := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
		return b.String()
	}
	word := rapid.StringMatching(`[a-c ,()=!\\]{1,4}`)
	rapid.Check(t, func(rt *rapid.T) {
		key, values := word.Draw(rt, "key"), rapid.SliceOfN(word, 1, 3).Draw(rt, "values")
		quoted := []string{}
		for _, v := range values {
			quoted = append(quoted, escape(v))
		}
		label := rapid.OneOf(word, rapid.SampledFrom(values)).Draw(rt, "label")
		has := slices.Contains(values, label)
		for text, want := range map[string]bool{
			escape(key): true, escape(key) + " in (" + strings.Join(quoted, ", ") + ")": has,
			escape(key) + " notin (" + strings.Join(quoted, ",") + ")": !has, escape(key) + "==" + quoted[0]: label == values[0],
			escape(key) + "!=" + quoted[0]: label != values[0]} {
			if got := matches(t, text, map[string]string{key: label}); got != want {
				rt.Fatalf("%s on %q: got %v, want %v", text, label, got, want)
			}
			if matches(t, text, map[string]string{key + "x": label}) {
				rt.Fatalf("%s is satisfied without its key", text)
			}
		}
	})
}
