package core

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marinaos/marina/internal/kernel"
)

// after has a datacenter do commands as transcripts have them.
func after(t *testing.T, commands string) *driver {
	t.Helper()
	d := newDriver()
	for line := range strings.SplitSeq(strings.TrimSpace(commands), "\n") {
		if err := d.command(strings.TrimSpace(line)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		d.settle()
	}
	return d
}

// Programs read views: what is answered of a cluster keeps its fields, their names and their words.
func TestViewsAreAnsweredAsTheyWere(t *testing.T) {
	for name, commands := range map[string]string{
		"ready":    "create 2\nrun plane\nrun node-1 node-2\nanswers\nready node-1 node-2\nbalances web",
		"creating": "create 1\nrun plane",
		"degraded": "create 1\nrun plane\nrun node-1\nanswers\nready node-1\naway plane\nsilent",
		"waiting":  "create 1\nfull\nrun plane",
		"deleting": "create 1\nrun plane\nrun node-1\nanswers\nready node-1\ndelete\nend node-1",
	} {
		t.Run(name, func(t *testing.T) {
			c := after(t, commands).c
			c.machine, c.Images = "192.0.2.1", []string{"docker.io/library/hello:1"}
			got, err := json.MarshalIndent(c.View(func() []kernel.AgentView {
				return []kernel.AgentView{{Agent: kernel.Agent{Bundles: map[string]string{"kubernetes/v1.37": "v1.37.2"}}}}
			}), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/view/"+name+".json", string(got)+"\n")
		})
	}
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", file, d)
	}
}

// What runs of a parked cluster is shown, and nothing is concluded from it.
func TestAParkedClusterShowsWhatTheKernelHas(t *testing.T) {
	d := after(t, "create 1\nrun plane\nrun node-1\nanswers\nready node-1")
	d.c.Park("working on it panicked", d.now)
	v := d.c.View(func() []kernel.AgentView { t.Error("the machines are asked"); return nil })
	if v.State != Parked || len(v.Members) != 2 || v.Members[1].State != "parked" || v.Members[1].Machine != "m1" ||
		!strings.Contains(strings.Join(v.WaitsFor, "\n"), "panicked") {
		t.Errorf("got %+v", v)
	}
	said := *d.c.steward.told
	said.Version = "v0"
	if d.c.Hear(&said, nil, d.now); d.c.steward.told.Version == "v0" {
		t.Error("a parked cluster hears its steward")
	}
}

// Each change of where a cluster stands is an event, once.
func TestWhereAClusterStandsIsToldWhenItChanges(t *testing.T) {
	d := after(t, "create 1\nrun plane\nrun node-1")
	stand := func(want Standing, changes bool) {
		t.Helper()
		if got, changed := d.c.Stand(d.now); got != want || changed != changes {
			t.Errorf("got %s, changed %v, want %s, %v", got, changed, want, changes)
		}
	}
	stand(Creating, false) // it was never told before
	d.steward("ready", []string{"node-1"})
	d.settle()
	stand(Ready, true)
	stand(Ready, false)
	d.now = d.now.Add(time.Second)
	d.steward("silent", nil)
	stand(Degraded, true)
	var said []string
	for _, e := range d.c.Events() {
		if strings.HasPrefix(e.Message, "is ") {
			said = append(said, e.Message)
		}
	}
	if want := []string{"is ready", "is degraded"}; !cmp.Equal(said, want) {
		t.Errorf("events: got %v, want %v", said, want)
	}
}
