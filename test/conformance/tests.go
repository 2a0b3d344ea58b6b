package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// classes are the shards, in the order in which they are run.
var classes = []string{"api", "node", "network", "dns", "serial"}

// Test is one conformance test of a minor.
type Test struct {
	Name    string // upstream's codename, which is the test's full text
	Class   string
	LeftOut string // why it is not run; empty if it is
}

// readTests reads the conformance tests of a Kubernetes source tree and sorts them.
func readTests(source string) ([]Test, error) {
	b, err := os.ReadFile(filepath.Join(source, "test", "conformance", "testdata", "conformance.yaml"))
	if err != nil {
		return nil, err
	}
	names, err := codenames(string(b))
	if err != nil {
		return nil, err
	}
	var out []Test
	for _, name := range names {
		out = append(out, Test{Name: name, Class: class(name), LeftOut: leftOut[plain(name)]})
	}
	return out, nil
}

// codenames finds the values of "codename" in conformance.yaml: scalars that are plain or quoted and go on over lines.
func codenames(yaml string) ([]string, error) {
	const key = "  codename: "
	var out []string
	lines := strings.Split(yaml, "\n")
	for i, line := range lines {
		value, ok := strings.CutPrefix(line, key)
		if !ok {
			continue
		}
		for _, more := range lines[i+1:] {
			if !strings.HasPrefix(more, "    ") {
				break
			}
			value += " " + strings.TrimSpace(more)
		}
		if quoted, ok := strings.CutPrefix(value, "'"); ok {
			value = strings.ReplaceAll(strings.TrimSuffix(quoted, "'"), "''", "'")
		} else if strings.HasPrefix(value, `"`) {
			return nil, fmt.Errorf("conformance.yaml line %d: a name in double quotes, which is not known here", i+1)
		}
		out = append(out, value)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("conformance.yaml names no test")
	}
	return out, nil
}

// plain is a test's name without its tags: "[sig-node] Pods should be updated [Conformance]" is "sig-node Pods should
// be updated".
func plain(name string) string {
	sig, _, _ := strings.Cut(strings.TrimPrefix(name, "["), "]")
	var rest strings.Builder
	depth := 0
	for _, r := range name {
		switch {
		case r == '[':
			depth++
		case r == ']' && depth > 0:
			depth--
		case depth == 0:
			rest.WriteRune(r)
		}
	}
	return sig + " " + strings.Join(strings.Fields(rest.String()), " ")
}

type rule struct{ class, name string }

func (r rule) fits(plain string) bool {
	if begin, ok := strings.CutSuffix(r.name, "..."); ok {
		return strings.HasPrefix(plain, begin)
	}
	return plain == r.name
}

//go:embed shards.txt
var shardsText string

//go:embed leftout.txt
var leftOutText string

var (
	rules   = readRules(shardsText)
	leftOut = readLeftOut(leftOutText)
)

func tableLines(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return l == "" || l[0] == '#' })
}

func readRules(text string) []rule {
	var out []rule
	for _, line := range tableLines(text) {
		class, name, _ := strings.Cut(line, " ")
		out = append(out, rule{class, name})
	}
	return out
}

func readLeftOut(text string) map[string]string {
	out := map[string]string{}
	for _, line := range tableLines(text) {
		name, why, _ := strings.Cut(line, "\t")
		out[name] = why
	}
	return out
}

func class(name string) string {
	p := plain(name)
	if i := slices.IndexFunc(rules, func(r rule) bool { return r.fits(p) }); i >= 0 {
		return rules[i].class
	}
	switch {
	case strings.Contains(name, "[Serial]"), strings.Contains(name, "[Disruptive]"):
		return "serial"
	case strings.HasPrefix(p, "sig-network DNS "):
		return "dns"
	case strings.HasPrefix(p, "sig-network "):
		return "network"
	}
	return "node"
}
