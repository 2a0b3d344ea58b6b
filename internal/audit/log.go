package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// Config says where a Log is and how much it keeps. Zero means the default.
type Config struct {
	Dir       string        // required; made with mode 0700
	FileBytes int64         // of one file before the next begins; default 16 MiB
	Files     int           // kept, the open one included; default 16
	SyncEvery time.Duration // longest a record waits for the disk; default 1 s
	Log       *slog.Logger
}

// maxLine bounds one record on disk.
const maxLine = 16 << 10

// Log is the audit log of one process.
type Log struct {
	cfg  Config
	wake chan struct{} // holds one when something has to be synced

	mu      sync.Mutex
	file    *os.File  // open for appending; nil after a write that failed; guarded by mu
	size    int64     // of file; guarded by mu
	next    int64     // number of the next record; guarded by mu
	lost    int64     // records that could not be written; guarded by mu
	since   time.Time // when records began to be lost, zero while none is; guarded by mu
	problem error     // why; guarded by mu
}

// Open continues the log in a directory, or begins one.
func Open(cfg Config) (*Log, error) {
	cfg.FileBytes = cmp.Or(cfg.FileBytes, 16<<20)
	cfg.Files = cmp.Or(cfg.Files, 16)
	cfg.SyncEvery = cmp.Or(cfg.SyncEvery, time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l := &Log{cfg: cfg, wake: make(chan struct{}, 1), next: 1}
	names, err := l.files()
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if len(names) > 0 {
		if l.next, err = l.numberAfter(names[len(names)-1]); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
	}
	if err := l.openLocked(names, l.next); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return l, nil
}

func fileName(first int64) string { return fmt.Sprintf("audit-%016d.jsonl", first) }

// firstOf is the number of a file's first record, as its name says it.
func firstOf(name string) (int64, bool) {
	text, ok := strings.CutPrefix(name, "audit-")
	text, isLog := strings.CutSuffix(text, ".jsonl")
	n, err := strconv.ParseInt(text, 10, 64)
	return n, ok && isLog && err == nil && n > 0
}

// files lists the log's files, the oldest first.
func (l *Log) files() ([]string, error) {
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, e := range entries {
		if _, ok := firstOf(e.Name()); ok && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names) // the numbers have leading zeros
	return names, nil
}

// numberAfter is the number that follows the last record of a file.
func (l *Log) numberAfter(name string) (int64, error) {
	next, _ := firstOf(name)
	err := scan(filepath.Join(l.cfg.Dir, name), func(r *Record) bool {
		next = max(next, r.Number+1)
		return true
	})
	return next, err
}

// openLocked opens the newest file, or a new one for the record first. A last line that was torn by a crash is ended,
// so that it spoils no other.
func (l *Log) openLocked(names []string, first int64) error {
	name := fileName(first)
	if len(names) > 0 {
		name = names[len(names)-1]
	}
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, name), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	if l.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, l.size-1); err != nil {
		return errors.Join(err, f.Close())
	}
	if last[0] != '\n' {
		n, err := f.Write([]byte("\n"))
		l.size += int64(n)
		return err
	}
	return nil
}

// Append numbers a record and writes it. It never fails for its caller: what cannot be written is counted and told by
// Alarms.
func (l *Log) Append(r Record) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Number = l.next
	l.next++
	if err := l.write(r); err != nil {
		l.lost++
		l.problem = err
		if l.since.IsZero() {
			l.since = time.Now()
			l.cfg.Log.Error("audit record lost", "err", err, "who", r.Who, "action", r.Action, "path", r.Path)
		}
		return
	}
	l.since, l.problem = time.Time{}, nil
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// write appends one line, in a new file if the present one is full.
func (l *Log) write(r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(line) > maxLine {
		r.Path, r.Notes = r.Path[:min(len(r.Path), maxLine/4)], nil
		if line, err = json.Marshal(r); err != nil {
			return err
		}
	}
	line = append(line, '\n')
	if l.file != nil && l.size > 0 && l.size+int64(len(line)) > l.cfg.FileBytes {
		l.rotate(r.Number)
	}
	if l.file == nil {
		if err := l.openLocked(l.continued(), r.Number); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	if err != nil { // what stands there now is half a line: take it back, or end it at the next open
		if n > 0 && l.file.Truncate(l.size-int64(n)) == nil {
			l.size -= int64(n)
		}
		l.file.Close()
		l.file = nil
	}
	return err
}

// continued is the newest file unless it is full.
func (l *Log) continued() []string {
	names, err := l.files()
	if err != nil || len(names) == 0 {
		return nil
	}
	info, err := os.Stat(filepath.Join(l.cfg.Dir, names[len(names)-1]))
	if err != nil || info.Size() >= l.cfg.FileBytes-maxLine {
		return nil
	}
	return names
}

// rotate goes on in a new file, that of the record first, and removes the oldest beyond the limit.
func (l *Log) rotate(first int64) {
	if err := errors.Join(l.file.Sync(), l.file.Close()); err != nil {
		l.cfg.Log.Warn("audit log not synced", "err", err)
	}
	l.file, l.size = nil, 0
	f, err := os.OpenFile(filepath.Join(l.cfg.Dir, fileName(first)), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		l.cfg.Log.Error("audit log not rotated", "err", err)
		return
	}
	l.file = f
	names, err := l.files()
	if err != nil {
		return
	}
	for len(names) > l.cfg.Files {
		if err := os.Remove(filepath.Join(l.cfg.Dir, names[0])); err != nil {
			l.cfg.Log.Warn("old audit file not removed", "file", names[0], "err", err)
			return
		}
		names = names[1:]
	}
}

// Run brings records to the disk until ctx ends, and then the last ones.
func (l *Log) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			l.sync()
			return context.Cause(ctx)
		case <-l.wake:
		}
		l.sync()
		select {
		case <-ctx.Done():
		case <-time.After(l.cfg.SyncEvery):
		}
	}
	l.sync()
	return context.Cause(ctx)
}

func (l *Log) sync() {
	l.mu.Lock()
	f := l.file
	l.mu.Unlock()
	if f == nil {
		return
	}
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) { // rotated meanwhile: synced there
		l.cfg.Log.Warn("audit log not synced", "err", err)
	}
}

// Close ends the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

// Alarms tells when records are being lost.
func (l *Log) Alarms() []kernel.Alarm {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		return nil
	}
	return []kernel.Alarm{{Subject: "audit log", Problem: fmt.Sprintf("%d records of changes could not be written: %v",
		l.lost, l.problem),
		Do: "make room on the disk of " + l.cfg.Dir, Since: l.since}}
}

// Query says which records are wanted. The zero value wants the newest ones.
type Query struct {
	Who     string    // of this user
	Path    string    // of this path and all below it
	Since   time.Time // not older
	After   int64     // with a higher number
	Outcome Outcome   // with this outcome
	Limit   int       // at most so many, the newest; default 100
}

// MaxLimit is the most records one Query returns.
const MaxLimit = 10000

func (q *Query) wants(r *Record) bool {
	below := func() bool {
		rest, ok := strings.CutPrefix(r.Path, strings.TrimSuffix(q.Path, "/"))
		return ok && (rest == "" || rest[0] == '/')
	}
	return (q.Who == "" || q.Who == r.Who || q.Who == r.Notes["uid"]) && (q.Path == "" || below()) &&
		!r.Time.Before(q.Since) &&
		r.Number > q.After && (q.Outcome == "" || q.Outcome == r.Outcome)
}

// Read returns the records that a query wants, oldest first. A limit above MaxLimit or below zero is
// errdefs.ErrInvalidArgument.
func (l *Log) Read(ctx context.Context, q Query) ([]Record, error) {
	q.Limit = cmp.Or(q.Limit, 100)
	if q.Limit < 0 || q.Limit > MaxLimit {
		return nil, fmt.Errorf("limit %d: expected 1 to %d: %w", q.Limit, MaxLimit, errdefs.ErrInvalidArgument)
	}
	names, err := l.files()
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	out := []Record{}
	for _, name := range slices.Backward(names) { // the newest files first, until there is enough
		found := []Record{}
		err := scan(filepath.Join(l.cfg.Dir, name), func(r *Record) bool {
			if q.wants(r) {
				found = append(found, *r)
			}
			if len(found) > 2*q.Limit {
				found = slices.Delete(found, 0, len(found)-q.Limit)
			}
			return ctx.Err() == nil
		})
		if errors.Is(err, fs.ErrNotExist) { // rotated away meanwhile
			break
		}
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		out = append(found, out...)
		first, _ := firstOf(name)
		if len(out) >= q.Limit || first <= q.After {
			break
		}
	}
	return out[max(0, len(out)-q.Limit):], nil
}

// scan calls f with each whole record of a file until f says false. Lines that are no record are left out: a crash tore
// them.
func scan(path string, f func(*Record) bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) { // what has no end yet is still being written
			return nil
		}
		if errors.Is(err, bufio.ErrBufferFull) { // no record is that long
			if err := skipLine(lines); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		var r Record
		if json.Unmarshal(bytes.TrimSpace(line), &r) != nil || r.Number == 0 {
			continue
		}
		if !f(&r) {
			return nil
		}
	}
}

func skipLine(lines *bufio.Reader) error {
	for {
		_, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) || err == nil {
			return nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}
