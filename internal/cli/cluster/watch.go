package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/kube"
	"github.com/marinaos/marina/internal/cli/output"
	"github.com/marinaos/marina/internal/kubernetes"
)

var errWaited = errors.New("waited long enough")

// pace is the pause between two looks at a cluster that is waited for.
const pace = 250 * time.Millisecond

// target is a cluster that somebody waits for.
type target struct {
	name, id string // the id tells it from a later one of its name; "" is any

	view *kubernetes.View // as it was seen last; nil before the first look and when it is gone
	gone bool
	done bool
	seen []string          // members that were seen, in order
	said map[string]string // what was printed last of it, by what it is about
}

// watch follows clusters until each is as it should be, or gone.
type watch struct {
	targets []*target
	gone    bool // the end is that they are gone, not that they are ready
	timeout time.Duration
}

// well reports whether a cluster is what its definition says. Its state alone may be older than the last change.
func well(k *kubernetes.View) bool {
	nodes := 0
	for _, m := range k.Members {
		if m.Name == controlPlane {
			continue
		}
		if nodes++; math.Abs(m.CPUs-k.Nodes.CPUs) > 0.001 || math.Abs(m.Mem-k.Nodes.Mem) > 1 {
			return false
		}
	}
	return k.State == kubernetes.Ready && nodes == count(&k.Definition)
}

// followClusters looks at the clusters until each has come to its end, and shows how far they are.
func followClusters(ctx context.Context, e *command.Env, cl *client.Client, w *watch) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.timeout, errWaited)
	defer cancel()
	b := e.Block()
	begin := time.Now()
	for {
		left, silent := 0, error(nil)
		for _, t := range w.targets {
			if t.done {
				continue
			}
			err := w.look(ctx, cl, t)
			switch {
			case ctx.Err() != nil:
				return w.ended(ctx)
			case exit.Is(err, exit.Unreachable) && t.view != nil: // a datacenter that restarts answers again
				silent = err
			case err != nil:
				return err
			}
			if !t.done {
				left++
			}
		}
		w.show(b, time.Since(begin), silent)
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return w.ended(ctx)
		case <-time.After(pace):
		}
	}
}

// look asks for one cluster.
func (w *watch) look(ctx context.Context, cl *client.Client, t *target) error {
	view, _, err := kube.Get(ctx, cl, t.name, "")
	other := err == nil && t.id != "" && view.ID != t.id
	switch {
	case other || exit.Is(err, exit.NotFound):
		t.gone, t.done = true, w.gone
		if w.gone {
			return nil
		}
		if t.view != nil || other {
			return &exit.Error{Code: exit.NotFound, Message: "cluster " + t.name + " was deleted meanwhile",
				Next: "marina cluster list"}
		}
		return err
	case err != nil:
		return err
	}
	t.id, t.view = view.ID, &view
	if w.gone {
		return nil
	}
	if view.State == kubernetes.Deleting {
		return &exit.Error{Code: exit.Conflict, Message: "cluster " + t.name + " is being deleted",
			Next: "marina cluster delete " + t.name + " --yes --wait follows it"}
	}
	t.done = well(&view)
	return nil
}

// ended says why nobody looks any longer.
func (w *watch) ended(ctx context.Context) error {
	var names, why []string
	for _, t := range w.targets {
		if t.done {
			continue
		}
		names = append(names, t.name)
		if t.view != nil {
			for _, s := range t.view.WaitsFor {
				why = append(why, "\n  "+t.name+" waits for: "+s)
			}
		}
	}
	list, verb := strings.Join(names, ", "), "wait "
	state := "not as it should be yet"
	if w.gone {
		state = "not gone yet"
	}
	e := &exit.Error{Code: exit.Timeout, Message: list + ": " + state + strings.Join(why, ""),
		Next: "marina cluster show " + names[0]}
	if !errors.Is(context.Cause(ctx), errWaited) {
		if e.Code, e.Message = exit.Failed, "no longer watching "+list+"; the datacenter goes on with it"; w.gone {
			verb = "show "
		}
		e.Next = "marina cluster " + verb + names[0]
	}
	return e
}

// show draws the block on a terminal, and elsewhere writes a line for each thing that is new.
func (w *watch) show(b *output.Block, since time.Duration, silent error) {
	trouble := ""
	if silent != nil {
		trouble = "the datacenter does not answer at the moment"
	}
	if !b.Drawn() {
		for _, t := range w.targets {
			for _, line := range t.news(trouble) {
				b.Line(line)
			}
		}
		return
	}
	var lines []string
	for _, t := range w.targets {
		lines = append(lines, t.picture(since, max(b.Rows()/len(w.targets)-1, 1))...)
	}
	if trouble != "" {
		lines = append(lines, trouble)
	}
	b.Draw(lines)
}

// state names a cluster's state in a word.
func (t *target) state() string {
	switch {
	case t.gone:
		return "gone"
	case t.view == nil:
		return "unknown"
	}
	return string(t.view.State)
}

// news lists the changes of a cluster since it was asked last.
func (t *target) news(trouble string) []string {
	if t.said == nil {
		t.said = map[string]string{}
	}
	var out []string
	say := func(about, text string) {
		if text != t.said[about] {
			if t.said[about] = text; text != "" {
				out = append(out, t.name+": "+text)
			}
		}
	}
	say("trouble", trouble)
	for _, m := range t.members() {
		say("member "+m.Name, strings.TrimSuffix(m.Name+" "+m.State+": "+m.Message, ": "))
	}
	if t.view != nil && !t.gone {
		for _, s := range t.view.WaitsFor {
			say("waits for "+s, "waits for "+s)
		}
	}
	say("state", t.state())
	return out
}

// members is the cluster's members as they are, and those that were there before and are gone.
func (t *target) members() []kubernetes.Member {
	now := map[string]kubernetes.Member{}
	if t.view != nil && !t.gone {
		for _, m := range t.view.Members {
			if now[m.Name] = m; !slices.Contains(t.seen, m.Name) {
				t.seen = append(t.seen, m.Name)
			}
		}
	}
	var out []kubernetes.Member
	for _, name := range t.seen {
		m, ok := now[name]
		if !ok {
			m = kubernetes.Member{Name: name, State: "gone"}
		}
		out = append(out, m)
	}
	return out
}

// quarters is the fill of a member's bar.
var quarters = map[string]int{"waiting": 1, "starting": 2, "leaving": 2, "ready": 4}

// picture draws a cluster in a few lines: how it is, a bar for each member, what it waits for.
func (t *target) picture(since time.Duration, rows int) []string {
	head := fmt.Sprintf("%s  %s", t.name, t.state())
	if t.view != nil {
		head += "  " + t.view.Release
	}
	if !t.done {
		head += fmt.Sprintf("  %d s", int(since.Seconds()))
	}
	lines := []string{head}
	all := t.members()
	if t.done && len(all) > 4 {
		return lines
	}
	var waits []string
	if t.view != nil && !t.gone {
		for _, s := range t.view.WaitsFor[:min(3, len(t.view.WaitsFor))] {
			waits = append(waits, "  waits for "+s)
		}
	}
	room, hidden, ready := rows-1-len(waits), 0, 0
	for _, m := range all {
		if len(all) > room && (m.State == "ready" || m.State == "gone" || len(lines) >= room) {
			if hidden++; m.State == "ready" {
				ready++
			}
			continue
		}
		line := fmt.Sprintf("  %-*s  [%s] %s", len(controlPlane), m.Name, output.Bar(quarters[m.State], 4), m.State)
		if m.Message != "" {
			line += ": " + m.Message
		}
		lines = append(lines, line)
	}
	if hidden > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more, %d of them ready", hidden, ready))
	}
	return append(lines, waits...)
}
