package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// Outcomes of a test that was run.
const (
	passed = "passed"
	failed = "failed"
)

// Result is the outcome of a test's last run.
type Result struct {
	Outcome string    `json:"outcome"`
	Seconds float64   `json:"seconds"`
	Time    time.Time `json:"time"`
	Release string    `json:"release"` // of the cluster and the tests, "v1.37.2"
	Where   string    `json:"where"`   // "2 nodes", "no nodes", "bare control plane"
	Message string    `json:"message,omitempty"`
}

// Results are those of a minor, by the tests' names. Whoever writes them is the only one that does.
type Results struct {
	path  string
	Tests map[string]Result `json:"tests"`
}

// readResults reads a file; none is as good as an empty one.
func readResults(path string) (*Results, error) {
	r := &Results{path: path, Tests: map[string]Result{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err != nil {
		return nil, fmt.Errorf("results %s: %w", path, err)
	}
	return r, nil
}

// add replaces the results of the tests that were run, and writes the file by rename.
func (r *Results) add(tests map[string]Result) error {
	maps.Copy(r.Tests, tests)
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(r.path+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(r.path+".new", r.path)
}

// Count sums up a set of tests.
type Count struct{ All, Passed, Failed, LeftOut, NotRun int }

// String is the count in words.
func (c Count) String() string {
	s := fmt.Sprintf("of %d tests %d were run: %d passed, %d failed; %d left out", c.All, c.Passed+c.Failed, c.Passed,
		c.Failed, c.LeftOut)
	if c.NotRun > 0 {
		s += fmt.Sprintf("; %d not run yet", c.NotRun)
	}
	return s
}

// count counts the tests that keep says yes to.
func (r *Results) count(tests []Test, keep func(Test) bool) Count {
	var c Count
	for _, t := range tests {
		if !keep(t) {
			continue
		}
		c.All++
		switch result, run := r.Tests[t.Name]; {
		case t.LeftOut != "":
			c.LeftOut++
		case !run:
			c.NotRun++
		case result.Outcome == passed:
			c.Passed++
		default:
			c.Failed++
		}
	}
	return c
}
