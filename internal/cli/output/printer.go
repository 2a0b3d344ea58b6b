package output

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"

	"github.com/marinaos/marina/internal/cli/exit"
)

// Printer holds a command's streams, and how it writes to them.
type Printer struct {
	Out   io.Writer // results
	Err   io.Writer // progress, hints, questions, errors
	In    io.Reader // answers, and files that are named "-"
	JSON  bool      // --json: print the API's own answer, and no progress
	Quiet bool      // --quiet: results only, no progress
}

// Columns is the width of a terminal where nobody can tell.
const Columns = 80

var oneLine = strings.NewReplacer("\n", " ", "\t", " ")

// Table prints rows under headings, in columns; a missing value is "-".
func (p *Printer) Table(head []string, rows [][]string) {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		for i := range r {
			if r[i] = oneLine.Replace(Clean(r[i])); r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// Fitted is Table with one column shortened where the whole would be wider than Columns.
func (p *Printer) Fitted(head []string, rows [][]string, flexible int) {
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
	if over := total - 2 - Columns; over > 0 {
		for _, r := range rows {
			r[flexible] = Short(r[flexible], max(widest-over, 4))
		}
	}
	p.Table(head, rows)
}

// Fields prints name and value, one a line; names without a value are left out.
func (p *Printer) Fields(pairs ...string) {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], Clean(pairs[i+1]))
		}
	}
	w.Flush()
}

// Raw prints an API answer as it came, indented.
func (p *Printer) Raw(b []byte) error {
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		_, err = p.Out.Write(b)
		return err
	}
	enc := json.NewEncoder(p.Out)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// Document prints a value as the API would write it.
func (p *Printer) Document(value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return p.Raw(b)
}

// Open opens a file argument; "-" is standard input. The error is one of usage.
func (p *Printer) Open(name string) (*os.File, error) {
	if name == "-" {
		if f, ok := p.In.(*os.File); ok {
			return f, nil
		}
		return nil, exit.Usage("", "there is no standard input")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, exit.Usage("", "%v", err)
	}
	return f, nil
}

// Terminal returns the file of a stream, and whether that is a person's terminal.
func Terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}
