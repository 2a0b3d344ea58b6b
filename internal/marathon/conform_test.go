package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestOnlyOneWayToReadIsRead(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for text, says := range map[string]string{
		"":                       "end of input",
		"{":                      "end of input",
		`{"a":1`:                 "end of input",
		"[1":                     "end of input",
		`{"a":1,"a":2}`:          `key "a" stands twice`,
		`{"x":{"b":1,"b":null}}`: `key "b" stands twice`,
		"1 2":                    "something follows",
		`{} {}`:                  "something follows",
		"\"\xff\"":               "UTF-8",
		"nul":                    "",
		deep(MaxDepth + 1):       "levels of nesting",
		`{"a":tru}`:              "",
		`{1:2}`:                  "",
	} {
		_, err := Parse([]byte(text))
		if _, ok := errors.AsType[*SyntaxError](err); !ok || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: got %v, want a SyntaxError that says %q", text, err, says)
		}
	}
	if _, err := Parse([]byte(deep(MaxDepth))); err != nil {
		t.Errorf("%d levels: got %v, want none", MaxDepth, err)
	}
}

func TestNumbersAreReadAsTheyStand(t *testing.T) {
	v, err := Parse([]byte(`[9007199254740993, 0.1, 1e3]`))
	if got := fmt.Sprint(v); err != nil || got != "[9007199254740993 0.1 1e3]" {
		t.Errorf("got %s %v, want every digit", got, err)
	}
}

// valid is the smallest value that a field of a type may have.
func valid(t reflect.Type, rules string) any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == typeOf[UnreachableStrategy]():
		return "disabled"
	case t == typeOf[Limit]():
		return "unlimited"
	case t == typeOf[json.RawMessage]():
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Struct:
		out := map[string]any{}
		for i := range t.NumField() {
			f := t.Field(i)
			if _, required := rule(f.Tag.Get("raml"), "required"); required {
				out[jsonName(f)] = valid(f.Type, f.Tag.Get("raml"))
			}
		}
		return out
	case reflect.Slice:
		return []any{valid(t.Elem(), rules)}
	case reflect.Map:
		return map[string]any{"k": valid(t.Elem(), "")}
	case reflect.Bool:
		return true
	case reflect.String:
		if e, ok := rule(rules, "enum"); ok {
			return strings.Split(e, "|")[0]
		}
		return "x"
	}
	if lo, ok := rule(rules, "min"); ok {
		return json.Number(lo)
	}
	return json.Number("1")
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// probe tries what a field's rules forbid and what they just allow. wrap puts a value of the field into an app that is
// else as it should be.
func probe(t *testing.T, typ reflect.Type, rules, path string, wrap func(any) any) {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	found := func(v any) []string {
		_, errs := conform(wrap(v), typeOf[App](), "", "")
		for _, d := range errs {
			if d.Path == path {
				return d.Errors
			}
		}
		return nil
	}
	refused := func(v any, code string) {
		if got := found(v); !slices.Equal(got, []string{code}) {
			t.Errorf("%s: %.40v: got %q, want %s", path, v, got, code)
		}
	}
	allowed := func(v any) {
		if got := found(v); len(got) > 0 {
			t.Errorf("%s: %.40v: got %q, want none", path, v, got)
		}
	}
	if typ == typeOf[json.RawMessage]() || typ == typeOf[UnreachableStrategy]() || typ == typeOf[Limit]() {
		allowed(valid(typ, rules))
		return
	}
	switch typ.Kind() {
	case reflect.Struct:
		if path != "" {
			refused("x", "error.expected.jsobject")
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := jsonName(f)
			probe(t, f.Type, f.Tag.Get("raml"), path+"/"+name, func(v any) any {
				o := maps.Clone(valid(typ, "").(map[string]any))
				o[name] = v
				return wrap(o)
			})
		}
	case reflect.Slice:
		refused(map[string]any{}, "error.expected.jsarray")
		refused(slices.Repeat([]any{valid(typ.Elem(), rules)}, MaxItems+1), "error.maxLength")
		probe(t, typ.Elem(), rules, path+"(0)", func(v any) any { return wrap([]any{v}) })
	case reflect.Map:
		refused([]any{}, "error.expected.jsobject")
		probe(t, typ.Elem(), "", path+"(k)", func(v any) any { return wrap(map[string]any{"k": v}) })
	case reflect.Bool:
		refused("true", "error.expected.jsboolean")
		allowed(false)
	case reflect.String:
		refused(true, "error.expected.jsstring")
		probeString(rules, refused, allowed)
	default:
		refused("1", "error.expected.jsnumber")
		probeNumber(typ.Kind() == reflect.Int, rules, refused, allowed)
	}
}

func probeString(rules string, refused func(any, string), allowed func(any)) {
	if e, ok := rule(rules, "enum"); ok {
		for _, one := range strings.Split(e, "|") {
			allowed(one)
			refused(one+"?", "error.unknown.enum.literal")
		}
		return
	}
	if lo, ok := rule(rules, "minLength"); ok && lo == "1" {
		refused("", "error.minLength")
	}
	if hi, ok := rule(rules, "maxLength"); ok {
		n := must(strconv.Atoi(hi))
		allowed(strings.Repeat("x", n))
		refused(strings.Repeat("x", n+1), "error.maxLength")
	}
	if _, ok := rule(rules, "pattern"); ok {
		refused("-x", "error.pattern")
		refused("x y", "error.pattern")
	}
	allowed("x")
	refused("x\x00", "error.pattern")
}

func probeNumber(whole bool, rules string, refused func(any, string), allowed func(any)) {
	if whole {
		refused(json.Number("1.5"), "error.expected.int")
	}
	if lo, ok := rule(rules, "min"); ok {
		allowed(json.Number(lo))
		n := must(strconv.ParseFloat(lo, 64))
		refused(json.Number(strconv.FormatFloat(n-1, 'f', -1, 64)), "error.min")
		refused(json.Number("-1e999"), "error.min")
	}
	if hi, ok := rule(rules, "max"); ok {
		allowed(json.Number(hi))
		n := must(strconv.ParseFloat(hi, 64))
		refused(json.Number(strconv.FormatFloat(n+1, 'f', -1, 64)), "error.max")
		refused(json.Number("1e999"), "error.max")
	}
}

// TestEveryRuleOfEveryFieldHolds reads the rules off the types themselves, so that no field is left out.
func TestEveryRuleOfEveryFieldHolds(t *testing.T) {
	probe(t, typeOf[App](), "", "", func(v any) any { return v })
}

func TestWhatARuleSaysIsFound(t *testing.T) {
	const rules = `default={"a":1,"b":2},required,min=0,enum=tcp|udp|udp,tcp,pattern=name`
	for key, want := range map[string]string{"default": `{"a":1,"b":2}`, "required": "", "min": "0",
		"enum": "tcp|udp|udp,tcp", "pattern": "name"} {
		if got, ok := rule(rules, key); !ok || got != want {
			t.Errorf("%s: got %q %v, want %q", key, got, ok, want)
		}
	}
	if got, ok := rule(rules, "max"); ok {
		t.Errorf("max: got %q, want none", got)
	}
}

// draw makes any value that a field's rules allow.
func draw(t *rapid.T, typ reflect.Type, rules, at string) any {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case typ == typeOf[json.RawMessage]():
		return nil
	case typ == typeOf[UnreachableStrategy]():
		return rapid.SampledFrom([]any{"disabled", map[string]any{"inactiveAfterSeconds": json.Number("1"),
			"expungeAfterSeconds": json.Number("2")}}).Draw(t, at)
	case typ == typeOf[Limit]():
		return rapid.SampledFrom([]any{"unlimited", json.Number("1000000000")}).Draw(t, at)
	}
	switch typ.Kind() {
	case reflect.Struct:
		out := map[string]any{}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := jsonName(f)
			if _, required := rule(f.Tag.Get("raml"), "required"); required || rapid.IntRange(0, 3).Draw(t,
				at+"/"+name+"?") == 0 {
				out[name] = draw(t, f.Type, f.Tag.Get("raml"), at+"/"+name)
			}
		}
		return out
	case reflect.Slice:
		out := []any{}
		for range rapid.IntRange(0, 2).Draw(t, at+" items") {
			out = append(out, draw(t, typ.Elem(), rules, at))
		}
		return out
	case reflect.Map:
		return map[string]any{rapid.StringMatching(`[a-zA-Z_]{1,4}`).Draw(t, at+" key"): draw(t, typ.Elem(), "", at)}
	case reflect.Bool:
		return rapid.Bool().Draw(t, at)
	case reflect.String:
		if e, ok := rule(rules, "enum"); ok {
			return rapid.SampledFrom(strings.Split(e, "|")).Draw(t, at)
		}
		return rapid.StringMatching(`[a-z]{1,5}`).Draw(t, at)
	}
	lo, hi := 0, 50
	if s, ok := rule(rules, "min"); ok && s != "0.001" {
		lo = must(strconv.Atoi(s))
	}
	if s, ok := rule(rules, "max"); ok {
		hi = min(hi, must(strconv.Atoi(s)))
	}
	return json.Number(strconv.Itoa(rapid.IntRange(lo, hi).Draw(t, at)))
}

// TestWhatWasReadReadsTheSameAgain: what is kept and shown is one form, and no default is put in twice.
func TestWhatWasReadReadsTheSameAgain(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		given := draw(t, typeOf[App](), "", "").(map[string]any)
		a, err := Read(given, nil, false)
		if err != nil {
			if _, ok := errors.AsType[*InvalidError](err); !ok {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			return
		}
		accepted++
		first := must(json.Marshal(a))
		for _, partial := range []bool{false, true} {
			again := must(Parse(first)).(map[string]any)
			b, err := Read(again, a, partial)
			if err != nil {
				t.Fatalf("%s\ncomes back and is refused: %v", first, err)
			}
			b.Version, b.VersionInfo = a.Version, a.VersionInfo
			if second := must(json.Marshal(b)); string(second) != string(first) {
				t.Fatalf("partial %v: got\n%s\nwant\n%s", partial, second, first)
			}
		}
	})
	if accepted == 0 {
		t.Error("no app was accepted: this proves nothing")
	}
}
