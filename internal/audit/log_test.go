package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func read(t *testing.T, l *Log, q Query) []Record {
	t.Helper()
	all, err := l.Read(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func numbers(all []Record) (out []int64) {
	for _, r := range all {
		out = append(out, r.Number)
	}
	return out
}

func TestRecordsComeBackInOrderAfterARestart(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	l.Append(Record{Who: "ann", Action: "PUT", Path: "/v2/apps/web", Status: 201, Outcome: Done, Notes: map[string]string{"deployment": "d1"}})
	l.Append(Record{Who: "bob", Action: "DELETE", Path: "/v2/apps/web", Status: 403, Outcome: Refused})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Dir: dir})
	l.Append(Record{Who: "ann", Action: "POST", Path: "/v2/apps/web/restart", Outcome: Failed})
	got := read(t, l, Query{})
	if diff := cmp.Diff([]int64{1, 2, 3}, numbers(got)); diff != "" {
		t.Fatalf("numbers (-want +got):\n%s", diff)
	}
	if got[0].Notes["deployment"] != "d1" || got[1].Outcome != Refused || got[2].Who != "ann" {
		t.Errorf("records are %+v, want what was appended", got)
	}
}

// A file that is full is followed by the next, and the oldest goes; numbers go on.
func TestTheLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir, FileBytes: 2000, Files: 3})
	for n := range 200 {
		l.Append(Record{Who: "ann", Path: fmt.Sprint("/x/", n), Outcome: Done})
	}
	names, err := l.files()
	if err != nil || len(names) != 3 {
		t.Fatalf("files are %v (%v), want 3", names, err)
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() > 2000 {
			t.Errorf("%s: %v bytes (%v), want at most 2000", name, info.Size(), err)
		}
	}
	all := read(t, l, Query{Limit: MaxLimit})
	first, _ := firstOf(names[0])
	if all[0].Number != first || all[len(all)-1].Number != 200 || int64(len(all)) != 200-first+1 {
		t.Errorf("records %d to %d, %d of them; want %d to 200 without a gap", all[0].Number, all[len(all)-1].Number, len(all), first)
	}
}

func TestATornLastLineSpoilsNoOther(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	l.Append(Record{Who: "ann", Outcome: Done})
	l.Close()
	name := filepath.Join(dir, fileName(1))
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"number":2,"who":"to`)
	f.Close()
	l = open(t, Config{Dir: dir})
	l.Append(Record{Who: "bob", Outcome: Done})
	l.Append(Record{Who: "eve", Outcome: Done})
	all := read(t, l, Query{})
	if len(all) != 3 || all[1].Who != "bob" || all[2].Who != "eve" || all[1].Number >= all[2].Number {
		t.Errorf("records are %+v, want ann, bob, eve", all)
	}
}

// Nobody is kept from working by a log that cannot be written: it is told instead, and what comes later is written.
func TestALogThatCannotBeWrittenIsAnAlarm(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	l.Append(Record{Who: "ann", Outcome: Done})
	l.mu.Lock()
	l.file.Close() // as good as a disk that takes nothing
	l.mu.Unlock()
	l.Append(Record{Who: "lost", Outcome: Done})
	alarms := l.Alarms()
	if len(alarms) != 1 || !strings.Contains(alarms[0].String(), "1 records") || !strings.Contains(alarms[0].Do, dir) {
		t.Fatalf("alarms are %v, want one about a lost record that names the directory", alarms)
	}
	l.Append(Record{Who: "bob", Outcome: Done})
	if a := l.Alarms(); len(a) != 0 {
		t.Errorf("alarms are %v after a record was written, want none", a)
	}
	if got := numbers(read(t, l, Query{})); !cmp.Equal(got, []int64{1, 3}) {
		t.Errorf("numbers are %v, want 1 and 3: the gap shows what is missing", got)
	}
}

func TestManyAtOnceLoseNothing(t *testing.T) {
	l := open(t, Config{Dir: t.TempDir(), FileBytes: 4000, Files: 1000})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				l.Append(Record{Who: "ann", Outcome: Done})
			}
		})
	}
	wg.Wait()
	all := read(t, l, Query{Limit: MaxLimit})
	for n, r := range all {
		if r.Number != int64(n+1) {
			t.Fatalf("record %d has number %d", n+1, r.Number)
		}
	}
	if len(all) != 1000 {
		t.Errorf("%d records, want 1000", len(all))
	}
}

func TestQueriesFindWhatTheyName(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	l := open(t, Config{Dir: t.TempDir(), FileBytes: 300, Files: 100})
	l.Append(Record{Time: now.Add(-time.Hour), Who: "ann", Path: "/v2/apps/web", Outcome: Done})
	l.Append(Record{Time: now, Who: "bob", Path: "/v2/apps/web/tasks", Outcome: Refused})
	l.Append(Record{Time: now, Who: "ann", Path: "/v2/apps/website", Outcome: Failed})
	l.Append(Record{Time: now, Path: "/acs/api/v1/auth/login", Outcome: Done, Notes: map[string]string{"uid": "ann"}})
	for name, tc := range map[string]struct {
		q    Query
		want []int64
	}{
		"of a user, his logins included":  {Query{Who: "ann"}, []int64{1, 3, 4}},
		"of a path and below, no sibling": {Query{Path: "/v2/apps/web"}, []int64{1, 2}},
		"since":                           {Query{Since: now.Add(-time.Minute)}, []int64{2, 3, 4}},
		"after a number":                  {Query{After: 3}, []int64{4}},
		"refused ones":                    {Query{Outcome: Refused}, []int64{2}},
		"the newest":                      {Query{Limit: 2}, []int64{3, 4}},
		"nothing":                         {Query{Who: "eve"}, nil},
	} {
		if got := numbers(read(t, l, tc.q)); !cmp.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestNotesAreBounded(t *testing.T) {
	ctx, take := WithNotes(t.Context())
	for n := range 100 {
		Note(ctx, fmt.Sprint(n), strings.Repeat("x", 10000))
	}
	got := take()
	if len(got) != maxNotes {
		t.Errorf("%d notes, want %d", len(got), maxNotes)
	}
	for k, v := range got {
		if len(v) > maxNote {
			t.Errorf("note %s has %d bytes, want at most %d", k, len(v), maxNote)
		}
	}
	Note(t.Context(), "nobody", "asked") // must not panic
}

func TestAPIAnswersAndNamesWhatIsWrong(t *testing.T) {
	l := open(t, Config{Dir: t.TempDir()})
	l.Append(Record{Time: time.Now(), Who: "ann", Path: "/v2/apps/web", Outcome: Done})
	for url, want := range map[string]struct {
		status int
		says   string
	}{
		"/audit/v1?who=ann&since=1h&limit=5":   {200, `"who":"ann"`},
		"/audit/v1?who=eve":                    {200, `{"records":[]}`},
		"/audit/v1?since=yesterday":            {400, "expected a time such as"},
		"/audit/v1?limit=0":                    {400, "expected 1 to 10000"},
		"/audit/v1?limit=99999":                {400, "expected 1 to 10000"},
		"/audit/v1?user=ann":                   {400, "is no filter"},
		"/audit/v1?who=a&who=b":                {400, "2 times"},
		"/audit/v1?outcome=good":               {400, "expected done"},
		"/audit/v1?since=2026-01-01T00:00:00Z": {200, `"who":"ann"`},
		"/audit/v1?since=3d&path=/v2/apps":     {200, `"who":"ann"`},
		"/audit/v1/records":                    {404, "/audit/v1"},
	} {
		w := httptest.NewRecorder()
		l.Handler().ServeHTTP(w, httptest.NewRequest("GET", url, nil))
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.says) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %d %s, want %d with %q", url, w.Code, w.Body, want.status, want.says)
		}
	}
	w := httptest.NewRecorder()
	l.Handler().ServeHTTP(w, httptest.NewRequest("DELETE", "/audit/v1", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d, want 405", w.Code)
	}
}

// Run waits without polling while nothing is written, and ends with its context.
func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{Dir: t.TempDir(), SyncEvery: time.Hour})
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- l.Run(ctx) }()
		l.Append(Record{Who: "ann", Outcome: Done})
		synctest.Wait() // it has synced once and waits for an hour
		l.Append(Record{Who: "bob", Outcome: Done})
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v, want context.Canceled", err)
		}
		if got := read(t, l, Query{}); len(got) != 2 {
			t.Errorf("%d records, want 2", len(got))
		}
	})
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("{\"number\":1}\n{\"num"))
	f.Add([]byte("\n\n{\"number\":2,\"notes\":{\"a\":\"b\"}}\n"))
	f.Add([]byte(strings.Repeat("x", maxLine+10) + "\n{\"number\":3}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		name := filepath.Join(t.TempDir(), fileName(1))
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := scan(name, func(r *Record) bool {
			if r.Number == 0 {
				t.Error("a record without a number")
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWrappedHandlersAreRecorded(t *testing.T) {
	l := open(t, Config{Dir: t.TempDir()})
	h := l.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Note(r.Context(), "uid", "root")
		switch r.URL.Path {
		case "/no":
			http.Error(w, "no", http.StatusForbidden)
		case "/panic":
			panic(http.ErrAbortHandler)
		}
	}), func(*http.Request) (string, string) { return "uid 0", "socket" })
	for _, path := range []string{"/yes", "/no", "/panic"} {
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", path, nil))
		}()
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/yes", nil)) // changes nothing
	got := read(t, l, Query{})
	if len(got) != 3 || got[0].Outcome != Done || got[0].Status != 200 || got[1].Outcome != Refused || got[2].Outcome != Failed {
		t.Fatalf("records are %+v, want done, refused, failed", got)
	}
	if got[0].Who != "uid 0" || got[0].From != "socket" || got[0].Notes["uid"] != "root" {
		t.Errorf("record is %+v, want who, from and the note", got[0])
	}
}
