package agent

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

func sampleRecord() record {
	s := kernel.Spec{ID: "s", Framework: "marathon", Owner: "/web", Role: "/", Tasks: []kernel.TaskSpec{{Name: "a", Suffix: ".a"}}}
	r := newRecord(agentRecord{ID: "agent-1", Epoch: 3}, "boot", kernel.Group{ID: "g", Spec: "s"}, s)
	r.Tasks[0].Phase, r.Tasks[0].Status.Seq = phaseStarted, 7
	return r
}

// TestEveryDamageIsNoticed cuts and flips a checkpoint at every place.
func TestEveryDamageIsNoticed(t *testing.T) {
	good, err := encodeCheckpoint(sampleRecord())
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		t.Helper()
		var r record
		if err := decodeCheckpoint(b, &r); !errors.Is(err, errCorrupt) || !errdefs.IsDataLoss(err) {
			t.Errorf("%s: got %v, want it noticed", what, err)
		}
	}
	for i := range good {
		check(fmt.Sprintf("cut at %d", i), good[:i])
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d flipped", bit, i), b)
		}
	}
	check("lengthened", append(bytes.Clone(good), 0))
	var r record
	if err := decodeCheckpoint(good, &r); err != nil || r.Tasks[0].Status.Seq != 7 || !r.valid() {
		t.Errorf("undamaged: got %+v, %v", r, err)
	}
}

func TestCutOffSaveLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	f, err := openFolder(t.Context(), dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	r := sampleRecord()
	name := "groups/" + groupFile("g")
	if err := f.save(name, r); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(filepath.Join(dir, name))
	left := []string{name + temporaryExt, "agent.ckpt" + temporaryExt, "groups/.new-cut", ".new-cut"} // crashes before the rename
	for _, l := range left {
		if err := os.WriteFile(filepath.Join(dir, l), b[:40], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "groups", "misnamed.ckpt"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := f.groups()
	if err != nil || len(got) != 1 || got[0].Tasks[0].Status.Seq != 7 {
		t.Errorf("got %+v, %v, want what was saved", got, err)
	}
	for _, l := range left {
		if _, err := os.Stat(filepath.Join(dir, l)); err == nil {
			t.Errorf("%s, the rest of a save that was cut off, is still there", l)
		}
	}
	if !strings.Contains(log.String(), filepath.Join(dir, "groups", "misnamed.ckpt.corrupt")) {
		t.Errorf("log %q does not name the file that was set aside", log.String())
	}
}

func FuzzCheckpoint(f *testing.F) {
	good, err := encodeCheckpoint(sampleRecord())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte(checkpointMagic))
	f.Add([]byte{})
	for _, v := range []any{nil, []int{1}, map[string]any{"tasks": "x"}, map[string]any{"tasks": []any{nil}, "ending": map[string]any{"task": 99}}} {
		b, err := encodeCheckpoint(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record
		if err := decodeCheckpoint(b, &r); err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("got %v, want it to be of kind errCorrupt", err)
			}
			return
		}
		if !r.valid() {
			return // set aside
		}
		p := decideRecovery(r, "boot", nil) // what is valid can be gone on with
		if p.rec.Ending != nil {
			for i := range p.rec.Tasks {
				if s := verdict(&p.rec, i, p.facts[i]); !s.State.Terminal() && p.rec.Ending.State.Terminal() {
					t.Errorf("verdict %+v is no end", s)
				}
			}
		}
	})
}
