package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The lines of docs/conformance.md between which the report stands.
const (
	reportBegin = "<!-- written by make conformance-report -->\n"
	reportEnd   = "<!-- end of what is written -->\n"
)

// writeReport replaces the report in docs/conformance.md.
func writeReport(root string, minors []*Minor) error {
	path := filepath.Join(root, "docs", "conformance.md")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), reportBegin)
	_, after, ok2 := strings.Cut(rest, reportEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the report: the lines %q and %q", path, reportBegin, reportEnd)
	}
	return os.WriteFile(path, []byte(before+reportBegin+report(minors)+reportEnd+after), 0o644)
}

func report(minors []*Minor) string {
	var b strings.Builder
	b.WriteString("\n| Release | Shard | Tests | Passed | Failed | Left out | Not run | Last run | On " +
		"|\n|---|---|--:|--:|--:|--:|--:|---|---|\n")
	for _, m := range minors {
		for _, class := range classes {
			in := func(t Test) bool { return t.Class == class }
			c := m.results.count(m.tests, in)
			days, where := m.ran(in)
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %s | %s |\n", m.release, class, c.All, c.Passed, c.Failed,
				c.LeftOut, c.NotRun, days, where)
		}
		c := m.results.count(m.tests, func(Test) bool { return true })
		fmt.Fprintf(&b, "| **%s** | **all** | **%d** | **%d** | **%d** | **%d** | **%d** | | |\n", m.release, c.All, c.Passed,
			c.Failed, c.LeftOut, c.NotRun)
	}
	for _, m := range minors {
		list(&b, m.release+", failed", m.tests, func(t Test) (string, bool) {
			r, run := m.results.Tests[t.Name]
			first, _, _ := strings.Cut(r.Message, "\n")
			return first, run && r.Outcome != passed && t.LeftOut == ""
		})
		list(&b, m.release+", left out", m.tests, func(t Test) (string, bool) { return t.LeftOut, t.LeftOut != "" })
	}
	b.WriteString("\n")
	return b.String()
}

// ran says when and on what the tests that keep says yes to were last run.
func (m *Minor) ran(keep func(Test) bool) (days, where string) {
	day, place := map[string]bool{}, map[string]bool{}
	for _, t := range m.tests {
		if r, run := m.results.Tests[t.Name]; run && keep(t) {
			day[r.Time.Format("2006-01-02")], place[r.Where] = true, true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(day)), ", "), strings.Join(slices.Sorted(maps.Keys(place)), ", ")
}

func list(b *strings.Builder, title string, tests []Test, why func(Test) (string, bool)) {
	for _, t := range tests {
		reason, listed := why(t)
		if !listed {
			continue
		}
		if title != "" {
			fmt.Fprintf(b, "\n%s:\n\n", title)
			title = ""
		}
		fmt.Fprintf(b, "- %s: %s\n", t.Name, reason)
	}
}
