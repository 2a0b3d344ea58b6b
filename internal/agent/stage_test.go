package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/kernel"
)

// fullSpec is a spec that needs something of every stage.
func fullSpec(w *world, shell string) kernel.Spec {
	v := &vault{all: map[string]kernel.Secret{}}
	v.set("pki", map[string][]byte{"ca.crt": []byte("one")})
	w.secrets = v
	s := claimSpec(shell)
	s.Network.Mode = kernel.NetworkBridge
	s.Tasks[0].Image = "example/image:1"
	s.Tasks[0].Files = []kernel.File{{Path: "/etc/x/pki", Secret: "pki"}, {Path: "/etc/x/conf", Content: []byte("{}")}}
	return named(s)
}

// left lists what is left of instances on the machine beside what is meant to stay: volumes and sandboxes.
func (w *world) left() (out []string) {
	for _, c := range w.containers() {
		out = append(out, "container "+c.ID)
	}
	attached, _ := w.net.Attached(context.Background())
	for _, g := range attached {
		out = append(out, "network of "+string(g))
	}
	for _, at := range w.mounted() {
		out = append(out, "mount "+at)
	}
	for _, dir := range []string{"groups", "network"} {
		names, _ := os.ReadDir(filepath.Join(w.cfg.State, dir))
		for _, n := range names {
			out = append(out, dir+"/"+n.Name())
		}
	}
	return out
}

// TestAgentKilledAroundAnyStageGoesOn kills the agent once before and once after each Prepare and each Undo. The next
// one goes on: the task is started once, and at the end nothing is left.
func TestAgentKilledAroundAnyStageGoesOn(t *testing.T) {
	for _, stage := range agent.Stages() {
		for _, undo := range []bool{false, true} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/undo=%v/after=%v", stage, undo, after), func(t *testing.T) {
					killAround(t, stage, undo, after)
				})
			}
		}
	}
}

func killAround(t *testing.T, stage string, undo, after bool) {
	w := newWorld(t)
	killed := make(chan struct{})
	var once atomic.Bool
	w.around = func(at string, isUndo bool, do func() error) error {
		hit := at == stage && isUndo == undo && once.CompareAndSwap(false, true)
		if hit && !after {
			w.crashNow()
			close(killed)
			return context.Canceled
		}
		err := do()
		if hit {
			w.crashNow()
			close(killed)
			return context.Canceled
		}
		return err
	}
	shell, file := truth(t, "exec sleep 600")
	spec := fullSpec(w, shell)
	w.start()
	w.master.launch(spec, kernel.Assignment{ID: "g"})
	if !undo {
		<-killed
		w.kill()
		w.start()
	}
	w.master.reaches("g.t0", kernel.Running)
	eventually(t, "the task says that it was started", func() bool { return starts(file)["g.t0"] > 0 })
	if got := readFile(t, filepath.Join(w.source("/etc/x/pki"), "ca.crt")); got != "one" {
		t.Errorf("the secret says %q", got)
	}
	w.master.end("g")
	if undo {
		<-killed
		w.kill()
		w.start()
	}
	w.master.reaches("g.t0", kernel.Killed)
	eventually(t, "nothing is left", func() bool { return len(w.left()) == 0 })
	if got := starts(file)["g.t0"]; got != 1 {
		t.Errorf("the task was started %d times, want once", got)
	}
	if _, err := os.Stat(filepath.Join(w.cfg.State, "volumes", "marathon", "a.one", "data.img")); err != nil {
		t.Errorf("the volume is gone with the group: %v", err)
	}
}

// A stage that fails ends the instance; all stages are undone in reverse, also those that were never prepared, and the
// one that cannot be undone again and again until it can. The end is told after that.
func TestStagesAreUndoneInReverseAndTheEndIsToldAfterThat(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var did []string
	broken, stubborn := errors.New("broken as the test wants it"), 2
	w.around = func(stage string, undo bool, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		what := stage
		if undo {
			what = "undo " + stage
			if s := w.master.status("g.t0"); s.State.Terminal() {
				t.Errorf("%s after the end was told: %s", what, s.State)
			}
		}
		did = append(did, what)
		switch {
		case what == "files":
			return broken
		case what == "undo volumes" && stubborn > 0:
			stubborn--
			return broken
		}
		return do()
	}
	spec := fullSpec(w, "exec sleep 600")
	w.start()
	w.master.launch(spec, kernel.Assignment{ID: "g"})
	s := w.master.reaches("g.t0", kernel.Failed)
	if s.Reason != kernel.ReasonRuntime || s.Message != "broken as the test wants it" {
		t.Errorf("got %s: %s, want the stage's error", s.Reason, s.Message)
	}
	mu.Lock()
	defer mu.Unlock()
	all := agent.Stages()
	want := slices.Clone(all[:slices.Index(all, "files")+1])
	for range 3 {
		for _, stage := range slices.Backward(all[3:]) {
			want = append(want, "undo "+stage)
		}
		for _, stage := range slices.Backward(all[:3]) {
			want = append(want, "undo "+stage)
		}
	}
	if !slices.Equal(did, want) {
		t.Errorf("did %q, want %q", did, want)
	}
	if left := w.left(); len(left) > 1 { // its checkpoint, until the end is acknowledged
		t.Errorf("left: %q", left)
	}
}
