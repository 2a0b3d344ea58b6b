package marathon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of what the API reads.
const (
	MaxBody  = 2 << 20 // bytes of a request
	MaxDepth = 100     // objects and lists inside each other
	MaxItems = 1024    // of a list inside an app
	MaxApps  = 1000    // of one request

	maxDetails = 100 // of one answer
)

// Detail is one thing that is wrong with a request: where, and in which ways.
type Detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// SyntaxError is JSON that cannot be read at all.
type SyntaxError struct{ Text string }

// Error is the text.
func (e *SyntaxError) Error() string { return e.Text }

// Parse reads one JSON value into maps, slices, strings, bools and json.Numbers. It refuses what two readers could
// read differently: a key twice in one object, text that is not UTF-8, anything after the value. Depth is bounded
// while reading, so that nesting costs nothing.
func Parse(body []byte) (any, error) {
	if !utf8.Valid(body) {
		return nil, &SyntaxError{"the text is not valid UTF-8"}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, &SyntaxError{fmt.Sprintf("something follows the value at offset %d", dec.InputOffset())}
	}
	return v, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, &SyntaxError{"unexpected end of input"}
		}
		return nil, &SyntaxError{err.Error()}
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth++; depth > MaxDepth {
		return nil, &SyntaxError{fmt.Sprintf("more than %d levels of nesting at offset %d", MaxDepth, dec.InputOffset())}
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			v, err := parseValue(dec, depth)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, closing(dec)
	}
	object := map[string]any{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, &SyntaxError{err.Error()}
		}
		name := key.(string)
		if _, twice := object[name]; twice {
			return nil, &SyntaxError{fmt.Sprintf("key %.80q stands twice in one object, before offset %d", name,
				dec.InputOffset())}
		}
		if object[name], err = parseValue(dec, depth); err != nil {
			return nil, err
		}
	}
	return object, closing(dec)
}

func closing(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return &SyntaxError{"unexpected end of input"}
	}
	return nil
}

// conform checks a parsed value against the Go type it is meant for and returns it with unknown keys and nulls left
// out and defaults put in. The rules stand in the type's raml tags: required, default=JSON, min=, max=, minLength=,
// maxLength=, enum=a|b, pattern=name. Errors carry Marathon's codes.
func conform(v any, t reflect.Type, rules, path string) (any, []Detail) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case typeOf[json.RawMessage]():
		return v, nil
	case typeOf[UnreachableStrategy]():
		if v == "disabled" {
			return v, nil
		}
		return conform(v, typeOf[unreachableJSON](), "", path)
	case typeOf[Limit]():
		if v == "unlimited" {
			return v, nil
		}
		if s, ok := v.(string); ok {
			return nil, Bad(path, fmt.Sprintf("'%.80s' is an invalid resource limit. It must be 'unlimited' or a number", s))
		}
		return conform(v, typeOf[float64](), "min=0,max=1000000000", path)
	}
	switch t.Kind() {
	case reflect.Struct:
		return conformObject(v, t, path)
	case reflect.Slice:
		return conformList(v, t, rules, path)
	case reflect.Map:
		return conformMap(v, t, path)
	case reflect.String:
		s, ok := v.(string)
		if !ok {
			return nil, Bad(path, "error.expected.jsstring")
		}
		return s, stringRules(s, rules, path)
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			return nil, Bad(path, "error.expected.jsboolean")
		}
		return v, nil
	default:
		return conformNumber(v, t.Kind() == reflect.Int, rules, path)
	}
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// Bad says what is wrong at one path.
func Bad(path string, errs ...string) []Detail {
	if path == "" {
		path = "/"
	}
	return []Detail{{Path: path, Errors: errs}}
}

func conformObject(v any, t reflect.Type, path string) (any, []Detail) {
	in, ok := v.(map[string]any)
	if !ok {
		return nil, Bad(path, "error.expected.jsobject")
	}
	out, all := map[string]any{}, []Detail(nil)
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		rules := f.Tag.Get("raml")
		given := in[name]
		if given == nil {
			if def, ok := rule(rules, "default"); ok {
				given = must(Parse([]byte(def)))
			} else if _, ok := rule(rules, "required"); ok {
				all = append(all, Detail{path + "/" + name, []string{"error.path.missing"}})
				continue
			} else {
				continue
			}
		}
		clean, errs := conform(given, f.Type, rules, path+"/"+name)
		out[name], all = clean, append(all, errs...)
	}
	return out, all
}

func conformList(v any, t reflect.Type, rules, path string) (any, []Detail) {
	in, ok := v.([]any)
	if !ok {
		return nil, Bad(path, "error.expected.jsarray")
	}
	if len(in) > MaxItems {
		return nil, Bad(path, "error.maxLength")
	}
	out, all := make([]any, 0, len(in)), []Detail(nil)
	for i, e := range in {
		clean, errs := conform(e, t.Elem(), rules, fmt.Sprintf("%s(%d)", path, i))
		out, all = append(out, clean), append(all, errs...)
	}
	return out, all
}

func conformMap(v any, t reflect.Type, path string) (any, []Detail) {
	in, ok := v.(map[string]any)
	if !ok {
		return nil, Bad(path, "error.expected.jsobject")
	}
	out, all := map[string]any{}, []Detail(nil)
	for k, e := range in {
		if e == nil {
			continue
		}
		if _, secret := e.(map[string]any); secret && path == "/env" {
			return nil, Bad(fmt.Sprintf("/env(%s)", k), notBuilt("secrets in the environment"))
		}
		clean, errs := conform(e, t.Elem(), "", fmt.Sprintf("%s(%s)", path, k))
		out[k], all = clean, append(all, errs...)
	}
	return out, all
}

func conformNumber(v any, whole bool, rules, path string) (any, []Detail) {
	n, ok := v.(json.Number)
	if !ok {
		return nil, Bad(path, "error.expected.jsnumber")
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil {
		if strings.HasPrefix(n.String(), "-") {
			return nil, Bad(path, "error.min")
		}
		return nil, Bad(path, "error.max")
	}
	if whole && f != math.Trunc(f) {
		return nil, Bad(path, "error.expected.int")
	}
	if lo, ok := rule(rules, "min"); ok && f < must(strconv.ParseFloat(lo, 64)) {
		return nil, Bad(path, "error.min")
	}
	if hi, ok := rule(rules, "max"); ok && f > must(strconv.ParseFloat(hi, 64)) {
		return nil, Bad(path, "error.max")
	}
	if whole {
		return json.Number(strconv.FormatInt(int64(f), 10)), nil
	}
	return f, nil
}

var patterns = map[string]*regexp.Regexp{"name": regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)}

func stringRules(s, rules, path string) []Detail {
	if lo, ok := rule(rules, "minLength"); ok && len(s) < must(strconv.Atoi(lo)) {
		return Bad(path, "error.minLength")
	}
	if hi, ok := rule(rules, "maxLength"); ok && len(s) > must(strconv.Atoi(hi)) {
		return Bad(path, "error.maxLength")
	}
	if p, ok := rule(rules, "pattern"); ok && !patterns[p].MatchString(s) {
		return Bad(path, "error.pattern")
	}
	if e, ok := rule(rules, "enum"); ok {
		for _, one := range strings.Split(e, "|") {
			if s == one {
				return nil
			}
		}
		return Bad(path, "error.unknown.enum.literal")
	}
	if strings.ContainsRune(s, 0) {
		return Bad(path, "error.pattern")
	}
	return nil
}

// rule finds key=value or a bare key in a raml tag. A default or an enum may hold commas: both end at the next known
// key.
func rule(rules, key string) (string, bool) {
	for rest := rules; rest != ""; {
		loc := ruleEnd.FindStringIndex(rest)
		one := rest
		if loc == nil {
			rest = ""
		} else {
			one, rest = rest[:loc[0]], rest[loc[0]+1:]
		}
		if k, v, _ := strings.Cut(one, "="); k == key {
			return v, true
		}
	}
	return "", false
}

var ruleEnd = regexp.MustCompile(`,(required|default=|min=|max=|minLength=|maxLength=|enum=|pattern=)`)

// into decodes a conformed value.
func into[T any](v any) (*T, error) {
	out := new(T)
	if err := json.Unmarshal(must(json.Marshal(v)), out); err != nil {
		return nil, &SyntaxError{err.Error()}
	}
	return out, nil
}
