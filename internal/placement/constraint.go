package placement

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// bundlePrefix begins the names of fields for programs on a machine; no attribute of a machine begins so.
const bundlePrefix = "\x00bundle "

// constraint is one compiled constraint of a spec.
type constraint struct {
	kernel.Constraint
	like *regexp.Regexp
	max  int32 // UNIQUE: 1; MAX_PER: its value
}

func compile(c kernel.Constraint) (constraint, error) {
	out := constraint{Constraint: c}
	bad := func(why string) (constraint, error) {
		return out, fmt.Errorf("constraint %s: %s: %w", c.Field+":"+c.Operator+":"+c.Value, why, errdefs.ErrInvalidArgument)
	}
	if c.Field == "" || strings.HasPrefix(c.Field, bundlePrefix) {
		return bad("names no field")
	}
	switch c.Operator {
	case "LIKE", "UNLIKE":
		re, err := regexp.Compile("^(?:" + c.Value + ")$")
		if err != nil {
			return bad("its value is not a regular expression")
		}
		out.like = re
	case "UNIQUE":
		if c.Value != "" {
			return bad("UNIQUE takes no value")
		}
		out.max = 1
	case "MAX_PER":
		n, err := strconv.ParseInt(c.Value, 10, 32)
		if err != nil || n < 1 {
			return bad("MAX_PER takes a number from 1")
		}
		out.max = int32(n)
	case "GROUP_BY":
		if n, err := strconv.Atoi(c.Value); c.Value != "" && (err != nil || n < 1) {
			return bad("GROUP_BY takes nothing or a number from 1")
		}
	case "IS":
		if c.Value == "" {
			return bad("IS takes a value")
		}
	case "CLUSTER":
	default:
		return bad("the operators are UNIQUE, CLUSTER, GROUP_BY, LIKE, UNLIKE, MAX_PER, IS")
	}
	return out, nil
}

// hasBundle returns the constraint that a program is on the machine.
func hasBundle(name string) constraint {
	return constraint{Constraint: kernel.Constraint{Field: bundlePrefix + name}}
}

// counted reports whether the constraint depends on the places of other instances.
func (c *constraint) counted() bool {
	return c.max > 0 || c.Operator == "GROUP_BY" || c.Operator == "CLUSTER" && c.Value == ""
}

// String returns the name of the filter in refusals: "constraint rack:UNLIKE:r1".
func (c *constraint) String() string {
	if bundle, ok := strings.CutPrefix(c.Field, bundlePrefix); ok {
		return "bundle " + bundle
	}
	s := "constraint " + c.Field + ":" + c.Operator
	if c.Value != "" {
		s += ":" + c.Value
	}
	return s
}

func (c *constraint) detail() string {
	if strings.HasPrefix(c.Field, bundlePrefix) {
		return "these programs are not on the machine"
	}
	return ""
}

// holds reports whether a value passes a constraint that depends on the machine alone. A machine without a value
// passes UNLIKE only.
func (c *constraint) holds(value string) bool {
	switch c.Operator {
	case "UNLIKE":
		return !c.like.MatchString(value)
	case "LIKE":
		return c.like.MatchString(value)
	case "IS", "CLUSTER":
		return value == c.Value
	}
	return true
}

// field returns the machine's value of a constraint's field.
func (m *Machine) field(name string) (string, bool) {
	var v string
	switch name {
	case "hostname":
		v = m.Hostname
	case "@region":
		v = m.Region
	case "@zone":
		v = m.Zone
	default:
		if bundle, ok := strings.CutPrefix(name, bundlePrefix); ok {
			v, ok := m.Bundles[bundle]
			return v, ok
		}
		v, ok := m.Attributes[name]
		return v, ok
	}
	return v, v != ""
}

// filter is a constraint that depends on the machine alone, with the machines that pass. Requests with equal
// constraints share one.
type filter struct {
	constraint
	field    *field
	requests int
	built    bool
	passed   set
}

// filterFor returns the filter of a constraint, for one more request.
func (p *Pool) filterFor(c constraint) *filter {
	f := p.filters[c.Constraint]
	if f == nil {
		f = &filter{constraint: c, field: p.fieldFor(c.Field)}
		f.field.filters = append(f.field.filters, f)
		p.filters[c.Constraint] = f
	}
	f.requests++
	return f
}

func (f *filter) narrowSearch(q *search) { q.masks = append(q.masks, f.passing()) }

func (f *filter) allows(i int32) bool { return f.passing().has(i) }

// passing returns the machines that pass; the first call builds the set.
func (f *filter) passing() *set {
	if f.built {
		return &f.passed
	}
	f.built = true
	for v := range f.field.values {
		if f.holds(f.field.values[v].text) {
			f.field.values[v].markMachines(&f.passed, true)
		}
	}
	if f.Operator == "UNLIKE" {
		for i := range int32(f.field.machines) {
			if f.field.valueOf(i) < 0 {
				f.passed.setMember(i, true)
			}
		}
	}
	return &f.passed
}

// updateMachine judges machine i anew.
func (f *filter) updateMachine(i int32) {
	if !f.built {
		return
	}
	v := f.field.valueOf(i)
	f.passed.setMember(i, v < 0 && f.Operator == "UNLIKE" || v >= 0 && f.holds(f.field.values[v].text))
}
