package marathon

import (
	"fmt"
	"slices"
	"strings"
)

// Selector is one term of a label selector.
type Selector struct {
	key    string
	op     string // "", "==", "!=", "in", "notin"
	values []string
}

// Matches reports whether labels satisfy the term. Every kind of term wants the key to be there.
func (s Selector) Matches(labels map[string]string) bool {
	v, ok := labels[s.key]
	if !ok {
		return false
	}
	has := slices.Contains(s.values, v)
	switch s.op {
	case "==", "in":
		return has
	case "!=", "notin":
		return !has
	}
	return true
}

// ParseSelector reads comma separated terms: key, key==v, key!=v, key in (a,b), key notin (a,b). Terms are of
// letters, digits and - _ . ; anything else is escaped with a backslash.
func ParseSelector(text string) ([]Selector, error) {
	p := &selectorParser{rest: text}
	out := []Selector{}
	for {
		s, err := p.term()
		if err != nil {
			return nil, err
		}
		out = append(out, s)
		if p.skip(); p.rest == "" {
			return out, nil
		}
		if !p.take(",") {
			return nil, fmt.Errorf("expected a comma before '%s'", p.rest)
		}
	}
}

type selectorParser struct{ rest string }

func (p *selectorParser) skip() { p.rest = strings.TrimLeft(p.rest, " \t") }

func (p *selectorParser) take(token string) bool {
	p.skip()
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *selectorParser) word() (string, error) {
	p.skip()
	var b strings.Builder
	for p.rest != "" {
		c := p.rest[0]
		if c == '\\' && len(p.rest) > 1 {
			b.WriteByte(p.rest[1])
			p.rest = p.rest[2:]
			continue
		}
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			break
		}
		b.WriteByte(c)
		p.rest = p.rest[1:]
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("expected a name or a value at '%s'", p.rest)
	}
	return b.String(), nil
}

func (p *selectorParser) term() (s Selector, err error) {
	if s.key, err = p.word(); err != nil {
		return s, err
	}
	for _, op := range []string{"==", "!="} {
		if p.take(op) {
			s.op = op
			v, err := p.word()
			s.values = []string{v}
			return s, err
		}
	}
	p.skip()
	if p.rest == "" || p.rest[0] == ',' {
		return s, nil
	}
	if s.op, err = p.word(); err != nil {
		return s, err
	}
	if s.op != "in" && s.op != "notin" {
		return s, fmt.Errorf("unknown operator '%s'", s.op)
	}
	if !p.take("(") {
		return s, fmt.Errorf("expected ( after %s", s.op)
	}
	for {
		v, err := p.word()
		if err != nil {
			return s, err
		}
		s.values = append(s.values, v)
		if p.take(")") {
			return s, nil
		}
		if !p.take(",") {
			return s, fmt.Errorf("expected , or ) at '%s'", p.rest)
		}
	}
}
