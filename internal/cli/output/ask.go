package output

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/marinaos/marina/internal/cli/exit"
)

// Confirm asks a person a question that y answers. Without a terminal it is an error of usage that names --yes.
func (p *Printer) Confirm(question string) error {
	if _, ok := Terminal(p.In); !ok {
		return exit.Usage("--yes", "%s Nobody is there to ask", question)
	}
	fmt.Fprintf(p.Err, "%s [y/N] ", question)
	var answer string
	fmt.Fscanln(p.In, &answer)
	if !strings.HasPrefix(strings.ToLower(answer), "y") {
		return &exit.Error{Code: exit.Failed, Message: "nothing was done"}
	}
	return nil
}

// ConfirmName has a person type a name before what has it is deleted. danger says what that takes along, for when
// nobody is there to ask.
func (p *Printer) ConfirmName(name, danger, question string) error {
	if _, ok := Terminal(p.In); !ok {
		return exit.Usage("--yes", "%s, and nobody is there to ask", danger)
	}
	fmt.Fprintf(p.Err, "%s Type its name: ", question)
	return typed(p.In, name)
}

// typed reads a line, which has to be the name.
func typed(in io.Reader, name string) error {
	line, err := bufio.NewReader(in).ReadString('\n')
	if strings.TrimSpace(line) != name || err != nil {
		return &exit.Error{Code: exit.Failed, Message: "that is not " + name + ": nothing was deleted"}
	}
	return nil
}
