package output

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Progress shows one changing line on a terminal, and one line for each change elsewhere; nothing with --json or
// --quiet.
type Progress struct {
	w    io.Writer
	tty  bool
	last string
}

// Progress begins a changing line.
func (p *Printer) Progress() *Progress {
	line := &Progress{w: p.Err}
	_, line.tty = Terminal(p.Err)
	if p.Quiet || p.JSON {
		line.w = io.Discard
	}
	return line
}

// Drawn reports whether the line is drawn over, so that showing often costs nobody anything.
func (p *Progress) Drawn() bool { return p.tty }

// Show puts a text in place of the last one.
func (p *Progress) Show(format string, args ...any) {
	line := Clean(fmt.Sprintf(format, args...))
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

// Done ends the changing line; what stands there stays.
func (p *Progress) Done() {
	if p.tty && p.last != "" {
		fmt.Fprintln(p.w)
	}
	p.last = ""
}

// Block is some lines of a terminal that are drawn again and again.
type Block struct {
	w     io.Writer
	file  *os.File // of the terminal
	tty   bool
	lines int // that stand there
}

// Block begins a block; see Drawn for what it is where there is no terminal.
func (p *Printer) Block() *Block {
	b := &Block{w: p.Err}
	b.file, b.tty = Terminal(p.Err)
	if p.Quiet || p.JSON {
		b.w, b.tty = io.Discard, false
	}
	return b
}

// Drawn reports whether the block is drawn at all: where there is no terminal, what is new is printed by Line.
func (b *Block) Drawn() bool { return b.tty }

// Line prints a line where no block is drawn.
func (b *Block) Line(text string) { fmt.Fprintln(b.w, Clean(text)) }

// Rows bounds the lines of a block: one that is higher than the terminal cannot be drawn over.
func (b *Block) Rows() int {
	_, h, err := term.GetSize(int(b.file.Fd()))
	if err != nil || h < 4 {
		h = 24
	}
	return h - 2
}

// Draw puts lines in place of those that stand there, each cut to the terminal's width.
func (b *Block) Draw(lines []string) {
	width := Columns
	if w, _, err := term.GetSize(int(b.file.Fd())); err == nil && w > 0 {
		width = w
	}
	lines = lines[:min(len(lines), b.Rows())]
	var out strings.Builder
	if b.lines > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", b.lines)
	}
	for _, line := range lines {
		out.WriteString("\r\x1b[K" + Short(Clean(oneLine.Replace(line)), width-1) + "\n")
	}
	out.WriteString("\x1b[J")
	b.lines = len(lines)
	io.WriteString(b.w, out.String())
}
