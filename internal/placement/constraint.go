package placement

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// constraint is one compiled constraint of a spec.
type constraint struct {
	kernel.Constraint
	like *regexp.Regexp
	max  int // UNIQUE: 1; MAX_PER: its value
}

func compile(c kernel.Constraint) (constraint, error) {
	out := constraint{Constraint: c}
	bad := func(why string) (constraint, error) {
		return out, fmt.Errorf("constraint %s: %s: %w", c.Field+":"+c.Operator+":"+c.Value, why, errdefs.ErrInvalidArgument)
	}
	if c.Field == "" {
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
		n, err := strconv.Atoi(c.Value)
		if err != nil || n < 1 {
			return bad("MAX_PER takes a number from 1")
		}
		out.max = n
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

// counted reports whether the constraint depends on where other instances are.
func (c *constraint) counted() bool {
	return c.max > 0 || c.Operator == "GROUP_BY" || c.Operator == "CLUSTER" && c.Value == ""
}

// String is the name of its filter: "constraint rack:UNLIKE:r1".
func (c *constraint) String() string {
	s := "constraint " + c.Field + ":" + c.Operator
	if c.Value != "" {
		s += ":" + c.Value
	}
	return s
}

// holds judges the constraints that look at the machine alone.
func (c *constraint) holds(m *Machine) bool {
	v, ok := m.field(c.Field)
	switch c.Operator {
	case "UNLIKE":
		return !ok || !c.like.MatchString(v)
	case "LIKE":
		return ok && c.like.MatchString(v)
	case "IS":
		return ok && v == c.Value
	case "CLUSTER":
		return ok && (c.Value == "" || v == c.Value)
	}
	return ok
}

// tally is how many instances that count for one constraint are on machines with each value of its field.
type tally struct {
	*constraint
	by    map[string]int
	total int
	least int // GROUP_BY: the smallest count of any value a machine has
}

// allows judges a constraint that is counted.
func (t *tally) allows(value string) bool {
	switch {
	case t.max > 0:
		return t.by[value] < t.max
	case t.Operator == "GROUP_BY":
		return t.by[value] <= t.least
	default: // CLUSTER
		return t.total == 0 || t.by[value] > 0
	}
}

// add counts one more instance.
func (t *tally) add(value string) {
	t.by[value]++
	t.total++
	if t.Operator == "GROUP_BY" {
		t.least = leastOf(t.by)
	}
}

func leastOf(by map[string]int) int {
	least := -1
	for _, n := range by {
		if least < 0 || n < least {
			least = n
		}
	}
	return least
}

// field is the machine's value of a constraint's field.
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
		v, ok := m.Attributes[name]
		return v, ok
	}
	return v, v != ""
}
