package main

import (
	"strings"
	"testing"
)

const stream = `
{"config": {"protocol_version": "v1.0.0", "go_version": "go1.26.8"}}
{"progress": {"message": "Scanning your code"}}
{"osv": {"id": "GO-1", "summary": "Panic on frames"}}
{"osv": {"id": "GO-2", "summary": "Crash in net/http"}}
{"osv": {"id": "GO-3", "summary": "Never called"}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.0", "trace": [{"module": "example.com/zip", "version": "v1.1.0"}]}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.0", "trace": [
	{"module": "example.com/zip", "version": "v1.1.0", "package": "example.com/zip", "function": "Read", "receiver": "*Reader"},
	{"module": "m", "package": "m/images", "function": "load", "position": {"filename": "images/load.go", "line": 7}}]}}
{"finding": {"osv": "GO-2", "fixed_version": "v1.26.9", "trace": [
	{"module": "stdlib", "version": "v1.26.8", "package": "net/http", "function": "Serve"}]}}
{"finding": {"osv": "GO-2", "fixed_version": "v1.26.10", "trace": [
	{"module": "stdlib", "version": "v1.26.8", "package": "net/http", "function": "Get"}]}}
{"finding": {"osv": "GO-3", "trace": [{"module": "example.com/zip", "version": "v1.1.0", "package": "example.com/zip"}]}}
`

func TestOnlyWhatIsReachedAndNotAcceptedFails(t *testing.T) {
	for name, tc := range map[string]struct {
		accepted string
		ok       bool
		says     []string
	}{
		"not accepted": {says: []string{
			"GO-1 Panic on frames\n    example.com/zip@v1.1.0, mended by v1.2.0",
			"images/load.go:7: m/images.load calls example.com/zip.Reader.Read",
			"WARNING: build Marina with go1.26.9 or newer: go1.26.8 has 1 known",
		}},
		"accepted": {accepted: "GO-1 2026-11-30 we read no frames", ok: true},
		"accepted and gone": {
			accepted: "GO-1 2026-11-30 we read no frames\nGO-3 2026-11-30 nobody calls it",
			says:     []string{"GO-3 is not reached any more: remove it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			found, goVersion, err := read(strings.NewReader(stream))
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := parseAccepted(tc.accepted)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if ok := judge(&out, found, accepted, goVersion); ok != tc.ok {
				t.Errorf("got %v, want %v: %s", ok, tc.ok, out.String())
			}
			for _, s := range tc.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("got %q, want it to say %q", out.String(), s)
				}
			}
			if strings.Contains(out.String(), "Never called") {
				t.Errorf("it tells of what is not reached: %q", out.String())
			}
		})
	}
}

func TestAnAnswerThatBreaksOffIsNoAnswer(t *testing.T) {
	for _, s := range []string{"", `{"osv": {"id": "GO-1"}}`, stream[:200]} {
		if _, _, err := read(strings.NewReader(s)); err == nil {
			t.Errorf("%q was taken for an answer", s)
		}
	}
}

func TestAReasonAndADateAreAskedFor(t *testing.T) {
	for _, s := range []string{"GO-1", "GO-1 2026-11-30", "GO-1 soon we read no frames"} {
		if _, err := parseAccepted(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}
