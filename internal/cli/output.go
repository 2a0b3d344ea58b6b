package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"
)

// clean takes control characters out of what others wrote, so that a name cannot drive the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// table prints rows under headings, in columns; a missing value is "-".
func (v *invocation) table(head []string, rows [][]string) {
	w := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		for i := range r {
			if r[i] = strings.NewReplacer("\n", " ", "\t", " ").Replace(clean(r[i])); r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// columns is how wide a terminal is taken to be where nobody can tell.
const columns = 80

// fitted is table with one column shortened where the whole would be wider than 80 columns.
func (v *invocation) fitted(head []string, rows [][]string, flexible int) {
	total, widest := 0, 0
	for i := range head {
		w := len(head[i])
		for _, r := range rows {
			w = max(w, len([]rune(r[i])))
		}
		if total += w + 2; i == flexible {
			widest = w
		}
	}
	if over := total - 2 - columns; over > 0 {
		for _, r := range rows {
			r[flexible] = short(r[flexible], max(widest-over, 4))
		}
	}
	v.table(head, rows)
}

// fields prints name and value, one a line.
func (v *invocation) fields(pairs ...string) {
	w := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], clean(pairs[i+1]))
		}
	}
	w.Flush()
}

// raw prints an API answer as it came, indented.
func (v *invocation) raw(b []byte) error {
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		_, err = v.out.Write(b)
		return err
	}
	enc := json.NewEncoder(v.out)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// progress shows one changing line on a terminal, and one line for each change elsewhere. The zero value is silent.
type progress struct {
	w    io.Writer
	tty  bool
	last string
}

func (v *invocation) progress() *progress {
	p := &progress{w: v.err}
	if v.quiet || v.json {
		p.w = io.Discard
	}
	_, p.tty = isTerminal(v.err)
	return p
}

// isTerminal reports whether a stream is a person's terminal.
func isTerminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

func (p *progress) show(format string, args ...any) {
	line := clean(fmt.Sprintf(format, args...))
	if line == p.last {
		return
	}
	p.last = line
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(p.w, line)
	}
}

// done ends the changing line; what stands there stays.
func (p *progress) done() {
	if p.tty && p.last != "" {
		fmt.Fprintln(p.w)
	}
	p.last = ""
}

// bar draws a share of a whole: "#######...".
func bar(have, want int) string {
	const width = 20
	if want <= 0 {
		return strings.Repeat(".", width)
	}
	n := min(max(have*width/want, 0), width)
	return strings.Repeat("#", n) + strings.Repeat(".", width-n)
}

// plural counts things: "1 node", "2 nodes".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// ago writes a time as a distance: "12s", "3m", "5h", "4d".
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(time.Since(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
