package output_test

import (
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/cli/clitest"
	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/cli/output"
)

// at is a printer in front of a person.
func at(t *testing.T) (*output.Printer, *clitest.Terminal) {
	term := clitest.OpenTerminal(t)
	return &output.Printer{Out: term.Slave, Err: term.Slave, In: term.Slave}, term
}

func TestProgressIsDrawnOverOnATerminal(t *testing.T) {
	p, term := at(t)
	line := p.Progress()
	if !line.Drawn() {
		t.Error("it is not drawn over, want that on a terminal")
	}
	line.Show("1 of 2")
	line.Show("2 of 2")
	line.Done()
	line.Done()
	line.Show("next")
	line.Done()
	term.Await("next\r\n")
	clitest.Same(t, "the screen", term.Screen(), "2 of 2\nnext\n")
}

func TestABlockIsDrawnInPlace(t *testing.T) {
	p, term := at(t)
	b := p.Block()
	b.Draw([]string{"a  starting", "b  starting"})
	b.Draw([]string{"a  ready", "b  starting", "c  waiting\nfor room"})
	b.Draw([]string{"all ready"})
	b.Draw([]string{"all ready", "end"})
	term.Await("end")
	clitest.Same(t, "the screen", term.Screen(), "all ready\nend\n")
}

func TestABlockFitsTheTerminal(t *testing.T) {
	p, term := at(t)
	term.Resize(20, 8)
	b := p.Block()
	if b.Rows() != 6 {
		t.Errorf("%d rows of a terminal of 8, want 6", b.Rows())
	}
	long := strings.Repeat("x", 50)
	b.Draw([]string{long, "2", "3", "4", "5", "6", "7", "8"})
	term.Await("6\r\n")
	clitest.Same(t, "the screen", term.Screen(), long[:18]+"…\n2\n3\n4\n5\n6\n")
	term.Resize(80, 2) // nobody can see anything; nothing is drawn over the wrong lines
	if b.Rows() != 22 {
		t.Errorf("%d rows where nobody can tell, want 22", b.Rows())
	}
}

func TestAPersonConfirms(t *testing.T) {
	for typed, want := range map[string]bool{"y\n": true, "Yes\n": true, "n\n": false, "\n": false} {
		p, term := at(t)
		done := make(chan error, 1)
		go func() { done <- p.Confirm("Remove it?") }()
		term.Await("Remove it? [y/N] ")
		term.Type(typed)
		err := <-done
		if (err == nil) != want || err != nil && (!exit.Is(err, exit.Failed) || err.Error() != "nothing was done") {
			t.Errorf("typed %q: %v, want done %v", typed, err, want)
		}
	}
}

func TestAPersonTypesTheNameOfWhatGoes(t *testing.T) {
	for typed, want := range map[string]bool{"demo\n": true, "demo2\n": false, "y\n": false} {
		p, term := at(t)
		done := make(chan error, 1)
		go func() { done <- p.ConfirmName("demo", "it takes all", "Delete it?") }()
		term.Await("Delete it? Type its name: ")
		term.Type(typed)
		if err := <-done; (err == nil) != want {
			t.Errorf("typed %q: %v, want done %v", typed, err, want)
		}
	}
}
