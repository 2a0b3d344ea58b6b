package agent

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/agent/checkpoint"
	"github.com/marinaos/marina/internal/kernel"
)

func sampleRecord() record {
	s := kernel.Spec{ID: "s", Framework: "marathon", Owner: "/web", Role: "/", Tasks: []kernel.TaskSpec{{Name: "a", Suffix: ".a"}}}
	r := newRecord(agentRecord{ID: "agent-1", Epoch: 3}, "boot", kernel.Assignment{ID: "g", Spec: "s"}, s)
	r.Tasks[0].Phase, r.Tasks[0].Status.Seq = phaseStarted, 7
	return r
}

// A record that is under another instance's name, or whose parts do not fit, is as bad as one that is damaged.
func TestRecordsThatDoNotFitAreSetAsideAndMissedByNoOther(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	d, err := checkpoint.Open(t.Context(), dir, slog.New(slog.NewTextHandler(&log, nil)), instancesDir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	good, short := sampleRecord(), sampleRecord()
	short.Assignment.ID, short.Tasks = "short", nil
	for name, r := range map[string]record{checkpointFile("g"): good, checkpointFile("other"): good, checkpointFile("short"): short} {
		if err := d.Save(name, r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readInstances(d)
	if err != nil || len(got) != 1 || got[0].Assignment.ID != "g" || got[0].Tasks[0].Status.Seq != 7 {
		t.Errorf("got %+v, %v, want what was saved of g", got, err)
	}
	for _, id := range []kernel.InstanceID{"other", "short"} {
		file := filepath.Join(dir, checkpointFile(id)) + ".corrupt"
		if _, err := os.Stat(file); err != nil || !strings.Contains(log.String(), file) {
			t.Errorf("%s: got %v, want it set aside and named in the log", id, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, v := range []any{sampleRecord(), nil, []int{1}, map[string]any{"tasks": "x"}, map[string]any{"tasks": []any{nil}, "ending": map[string]any{"task": 99}}} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record
		if json.Unmarshal(b, &r) != nil || !r.valid() {
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
