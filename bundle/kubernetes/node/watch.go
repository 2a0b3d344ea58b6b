package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lookEvery is the pause between looks at files for changes.
const lookEvery = 2 * time.Second

// A Watch tells when files changed: not at the first difference but when one look has found them as the look before, so
// that files replaced one after the other count as one change.
type Watch struct {
	patterns    []string
	known, last string
}

func newWatch(patterns ...string) *Watch {
	w := &Watch{patterns: patterns}
	w.known = w.look()
	w.last = w.known
	return w
}

// Changed looks, and says whether the files differ from when it said so last.
func (w *Watch) Changed() bool {
	now := w.look()
	settled := now == w.last
	w.last = now
	if !settled || now == w.known {
		return false
	}
	w.known = now
	return true
}

func (w *Watch) look() string {
	var b strings.Builder
	for _, p := range w.patterns {
		files, _ := filepath.Glob(p) // patterns are constant
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
				fmt.Fprintln(&b, f, info.Size(), info.ModTime().UnixNano())
			}
		}
	}
	return b.String()
}
