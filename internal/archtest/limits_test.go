package archtest

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The limits. What is over them today stands in ratchet.txt.
const (
	maxCode     = 2500 // lines of code of a package, without blanks, comments and tests
	maxMethods  = 40   // of a type
	maxFunc     = 100  // lines of a function, tests included; 60 are aimed at
	maxWidth    = 160  // characters of a line
	wantedWidth = 120  // characters of a line
)

const (
	ratchetFile = "ratchet.txt"
	runUpdate   = "run go test ./internal/archtest -update"
	byHand      = "by hand and say why in the commit"
)

var update = flag.Bool("update", false, "lower and remove numbers of ratchet.txt, as the house measures now")

// mark is one line of ratchet.txt: a number that the house had, and has to get below.
type mark struct {
	what   string // one of the measures
	key    string // internal/master, internal/master.State, code, tests
	number int
	note   string // of packages: since when, and which issue ends it
}

func (m mark) id() string { return m.what + " " + m.key }

func (m mark) String() string {
	s := fmt.Sprintf("%-8s %-44s %6d", m.what, m.key, m.number)
	if m.note != "" {
		s += "  # " + m.note
	}
	return s
}

// measure is one thing the law counts.
type measure struct {
	what  string
	limit int
	unit  string
	step  int  // numbers are recorded as multiples, half a step above at the least: a mend does not touch the file
	named bool // a mark may follow what it measures to another package, by the last part of its key
}

// record is what ratchet.txt says of a number.
func (m measure) record(n int) int { return (n + m.step/2 + m.step - 1) / m.step * m.step }

var measures = []measure{
	{what: "package", limit: maxCode, unit: "lines of code", step: 100, named: true},
	{what: "methods", limit: maxMethods, unit: "methods", step: 1, named: true},
	{what: "func", limit: maxFunc, unit: "lines", step: 1, named: true},
	{what: "wide160", limit: 0, unit: fmt.Sprint("lines of more than ", maxWidth, " characters"), step: 10},
	{what: "wide120", limit: 0, unit: fmt.Sprint("lines of more than ", wantedWidth, " characters"), step: 50},
}

// survey measures the house, with what is within its limit.
func survey(packages []*Package) []mark {
	var out []mark
	wide := map[string]int{}
	for _, p := range packages {
		out = append(out, mark{what: "package", key: p.Path, number: p.Code(false)})
		for name, n := range p.Methods() {
			out = append(out, mark{what: "methods", key: p.Path + "." + name, number: n})
		}
		for _, f := range p.Files {
			where := "code"
			if f.Test || strings.HasPrefix(f.Path, "test/") {
				where = "tests"
			}
			for _, w := range f.Widths {
				wide["wide160 "+where] += toInt(w > maxWidth)
				wide["wide120 "+where] += toInt(w > wantedWidth)
			}
			for _, fn := range f.Funcs {
				name := strings.TrimPrefix(fn.Receiver+"."+fn.Name, ".")
				out = append(out, mark{what: "func", key: p.Path + "." + name, number: fn.Lines})
			}
		}
	}
	for id, n := range wide {
		what, key, _ := strings.Cut(id, " ")
		out = append(out, mark{what: what, key: key, number: n})
	}
	slices.SortFunc(out, func(a, b mark) int { return cmp.Or(cmp.Compare(a.what, b.what), cmp.Compare(a.key, b.key)) })
	return out
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// judge compares what is measured with the ratchet. It returns the ratchet as -update writes it when nothing is
// worse, the breaches that only a person can end, and those that -update ends.
func judge(ms []measure, ratchet, measured []mark) (next []mark, worse, slack []string) {
	old := map[string]mark{}
	for _, m := range ratchet {
		old[m.id()] = m
	}
	for _, of := range ms {
		over := map[string]mark{}
		for _, m := range measured {
			if m.what == of.what && m.number > of.limit {
				over[m.id()] = m
			}
		}
		for _, id := range slices.Sorted(maps.Keys(over)) {
			m := over[id]
			was, known := old[id]
			if !known && of.named {
				if was, known = movedFrom(old, over, m); known {
					slack = append(slack, fmt.Sprintf("%s seems to have moved to %s: %s", was.key, m.key, runUpdate))
					delete(old, was.id())
				}
			}
			allowed := max(of.limit, was.number)
			if m.number > allowed {
				worse = append(worse, tooMuch(of, m, was, known))
			}
			delete(old, id)
			next = append(next, mark{of.what, m.key, min(allowed, of.record(m.number)), was.note})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		slack = append(slack, fmt.Sprintf("%s is within its limit, or gone: %s, which removes its line", id, runUpdate))
	}
	return next, worse, slack
}

// movedFrom finds the mark of something with the same name that is over its limit no more where it was.
func movedFrom(old, over map[string]mark, m mark) (mark, bool) {
	for _, id := range slices.Sorted(maps.Keys(old)) {
		o := old[id]
		if _, still := over[id]; !still && o.what == m.what && lastName(o.key) == lastName(m.key) && o.number >= m.number {
			return o, true
		}
	}
	return mark{}, false
}

// lastName is Runtime of internal/agent/containerd.Runtime, and containerd of internal/agent/containerd.
func lastName(key string) string {
	base := path.Base(key)
	_, name, ok := strings.Cut(base, ".")
	if ok {
		return name
	}
	return base
}

func tooMuch(of measure, m, was mark, known bool) string {
	switch {
	case !of.named:
		return fmt.Sprintf("%s: %d %s, %d were there: wrap yours; git diff main... | grep -E '^\\+.{%d}' shows them",
			m.key, m.number, of.unit, was.number, wantedWidth+1)
	case known:
		return fmt.Sprintf("%s: %d %s, %d were there and the limit is %d: make it smaller, or raise its line %q in %s %s",
			m.key, m.number, of.unit, was.number, of.limit, m.id(), ratchetFile, byHand)
	case of.what == "package":
		m.note = time.Now().Format(time.DateOnly) + " issue N"
		fallthrough
	default:
		return fmt.Sprintf("%s: %d %s, the limit is %d: divide it, or add this line to %s %s:\n%s",
			m.key, m.number, of.unit, of.limit, ratchetFile, byHand, m)
	}
}

func TestNothingGrowsOverItsLimit(t *testing.T) {
	b, err := os.ReadFile(ratchetFile)
	if err != nil {
		t.Fatal(err)
	}
	ratchet, err := parseRatchet(b)
	if err != nil {
		t.Fatal(err)
	}
	next, worse, slack := judge(measures, ratchet, survey(load(t)))
	report(t, worse)
	if *update && len(worse) == 0 {
		if err := os.WriteFile(ratchetFile, formatRatchet(next), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	report(t, slack)
}

var since = regexp.MustCompile(`^20\d\d-\d\d-\d\d`)
var issue = regexp.MustCompile(`\bissue \d+`)

func TestPackagesOverTheLimitSayWhy(t *testing.T) {
	b, err := os.ReadFile(ratchetFile)
	if err != nil {
		t.Fatal(err)
	}
	ratchet, err := parseRatchet(b)
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]string{}
	for _, p := range load(t) {
		for _, f := range p.Files {
			doc[p.Path] += f.Doc
		}
	}
	for _, m := range ratchet {
		switch {
		case m.what != "package":
		case !since.MatchString(m.note):
			t.Errorf("%s: its line in %s ends with # and the date since when it is over the limit", m.key, ratchetFile)
		case !issue.MatchString(m.note) && !strings.Contains(doc[m.key], "2,500"):
			t.Errorf("%s: name the issue that ends it in %s, or say in its doc.go why it is larger than 2,500 lines",
				m.key, ratchetFile)
		}
	}
}

const ratchetHead = `# Where the house is over its limits; doc.go tells more. Only a person raises a number.
# Lower and remove them with: go test ./internal/archtest -update
`

func formatRatchet(marks []mark) []byte {
	var b bytes.Buffer
	b.WriteString(ratchetHead)
	for i, m := range marks {
		if i == 0 || m.what != marks[i-1].what {
			fmt.Fprintln(&b)
		}
		fmt.Fprintln(&b, m)
	}
	return b.Bytes()
}

func parseRatchet(b []byte) ([]mark, error) {
	var out []mark
	for line := range strings.Lines(string(b)) {
		data, note, _ := strings.Cut(line, "#")
		f := strings.Fields(data)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("%s: %q is not a measure, what it is of, and a number", ratchetFile, line)
		}
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", ratchetFile, line, err)
		}
		out = append(out, mark{f[0], f[1], n, strings.TrimSpace(note)})
	}
	return out, nil
}
