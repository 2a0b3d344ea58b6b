package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/marinaos/marina/internal/kubernetes"
)

// pace is how often a cluster that is waited for is looked at.
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
func (v *invocation) followClusters(ctx context.Context, cl *client, w *watch) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.timeout, errWaited)
	defer cancel()
	b := v.block()
	begin := time.Now()
	for {
		left, silent := 0, error(nil)
		for _, t := range w.targets {
			if t.done {
				continue
			}
			err := w.look(ctx, cl, t)
			e, _ := errors.AsType[*Error](err)
			switch {
			case ctx.Err() != nil:
				return w.ended(ctx)
			case e != nil && e.Code == ExitUnreachable && t.view != nil: // a datacenter that restarts answers again
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
func (w *watch) look(ctx context.Context, cl *client, t *target) error {
	view, _, err := cl.cluster(ctx, t.name, "")
	e, _ := errors.AsType[*Error](err)
	other := err == nil && t.id != "" && view.ID != t.id
	switch {
	case other || e != nil && e.Code == ExitNotFound:
		t.gone, t.done = true, w.gone
		if w.gone {
			return nil
		}
		if t.view != nil || other {
			return &Error{Code: ExitNotFound, Message: "cluster " + t.name + " was deleted meanwhile", Next: "marina cluster list"}
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
		return &Error{Code: ExitConflict, Message: "cluster " + t.name + " is being deleted", Next: "marina cluster delete " + t.name + " --yes --wait follows it"}
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
	e := &Error{Code: ExitTimeout, Message: list + ": " + state + strings.Join(why, ""), Next: "marina cluster show " + names[0]}
	if !errors.Is(context.Cause(ctx), errWaited) {
		if e.Code, e.Message = ExitFailed, "no longer watching "+list+"; the datacenter goes on with it"; w.gone {
			verb = "show "
		}
		e.Next = "marina cluster " + verb + names[0]
	}
	return e
}

// show draws the block on a terminal, and elsewhere writes a line for each thing that is new.
func (w *watch) show(b *block, since time.Duration, silent error) {
	trouble := ""
	if silent != nil {
		trouble = "the datacenter does not answer at the moment"
	}
	if !b.tty {
		for _, t := range w.targets {
			for _, line := range t.news(trouble) {
				fmt.Fprintln(b.w, clean(line))
			}
		}
		return
	}
	var lines []string
	for _, t := range w.targets {
		lines = append(lines, t.picture(since, max(b.rows()/len(w.targets)-1, 1))...)
	}
	if trouble != "" {
		lines = append(lines, trouble)
	}
	b.draw(lines)
}

// state is where a cluster stands, in a word.
func (t *target) state() string {
	switch {
	case t.gone:
		return "gone"
	case t.view == nil:
		return "unknown"
	}
	return string(t.view.State)
}

// news is what changed of a cluster since it was asked last.
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

// quarters is how full the bar of a member is.
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
		line := fmt.Sprintf("  %-*s  [%s] %s", len(controlPlane), m.Name, bar(quarters[m.State], 4), m.State)
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

// block is some lines of a terminal that are drawn again and again.
type block struct {
	w     io.Writer
	file  *os.File // of the terminal
	tty   bool
	lines int // that stand there
}

func (v *invocation) block() *block {
	b := &block{w: v.err}
	b.file, b.tty = isTerminal(v.err)
	if v.quiet || v.json {
		b.w, b.tty = io.Discard, false
	}
	return b
}

// rows is how many lines a block may have: one that is higher than the terminal cannot be drawn over.
func (b *block) rows() int {
	_, h, err := term.GetSize(int(b.file.Fd()))
	if err != nil || h < 4 {
		h = 24
	}
	return h - 2
}

// draw puts lines in place of those that stand there, each cut to the terminal's width.
func (b *block) draw(lines []string) {
	width := columns
	if w, _, err := term.GetSize(int(b.file.Fd())); err == nil && w > 0 {
		width = w
	}
	lines = lines[:min(len(lines), b.rows())]
	var out strings.Builder
	if b.lines > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", b.lines)
	}
	for _, line := range lines {
		out.WriteString("\r\x1b[K" + short(clean(strings.NewReplacer("\n", " ", "\t", " ").Replace(line)), width-1) + "\n")
	}
	out.WriteString("\x1b[J")
	b.lines = len(lines)
	io.WriteString(b.w, out.String())
}
