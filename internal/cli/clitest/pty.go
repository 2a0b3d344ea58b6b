package clitest

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudo-terminal: the command has its Slave, and the test is the person in front of it.
type Terminal struct {
	Slave *os.File // what the command reads and writes

	t      *testing.T
	master *os.File
	more   chan struct{} // something was written

	mu   sync.Mutex
	seen strings.Builder // guarded by mu
}

// OpenTerminal makes a terminal of 80 columns and 24 rows; it lives until the test ends.
func OpenTerminal(t *testing.T) *Terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("this machine has no pseudo-terminals: %v", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &Terminal{Slave: slave, t: t, master: master, more: make(chan struct{}, 1)}
	term.Resize(80, 24)
	var reading sync.WaitGroup
	reading.Go(term.read)
	t.Cleanup(func() {
		master.Close() // hangs up: whoever still reads the slave gets an error
		reading.Wait()
		slave.Close()
	})
	return term
}

// Resize changes how large it is.
func (term *Terminal) Resize(columns, rows uint16) {
	conn, err := term.master.SyscallConn()
	if err != nil {
		term.t.Fatal(err)
	}
	control := func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	}
	if cerr := conn.Control(control); cerr != nil || err != nil {
		term.t.Error(cerr, err)
	}
}

// Type types a text.
func (term *Terminal) Type(text string) {
	if _, err := term.master.WriteString(text); err != nil {
		term.t.Error(err)
	}
}

func (term *Terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := term.master.Read(buf)
		term.mu.Lock()
		term.seen.Write(buf[:n])
		term.mu.Unlock()
		select {
		case term.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Seen is all that was written to it, escapes included.
func (term *Terminal) Seen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

// Await waits until a text was written to it.
func (term *Terminal) Await(text string) {
	term.t.Helper()
	limit := time.After(Limit)
	for !strings.Contains(term.Seen(), text) {
		select {
		case <-term.more:
		case <-limit:
			term.t.Fatalf("the terminal never showed %q, but:\n%q", text, term.Seen())
		}
	}
}

// Screen renders output as a terminal shows it: carriage returns, cursor movements up, and erased lines are obeyed.
func (term *Terminal) Screen() string {
	lines, at := []string{""}, 0
	text := strings.ReplaceAll(term.Seen(), "\r\n", "\n")
	for len(text) > 0 {
		var up int
		switch {
		case strings.HasPrefix(text, "\x1b[K"):
			lines[at], text = "", text[3:]
		case strings.HasPrefix(text, "\x1b[J"):
			lines, text = append(lines[:at], ""), text[3:]
		case strings.HasPrefix(text, "\x1b["):
			if _, err := fmt.Sscanf(text, "\x1b[%dA", &up); err != nil {
				return fmt.Sprintf("unknown escape in %q", text)
			}
			at = max(at-up, 0)
			text = text[strings.IndexByte(text, 'A')+1:]
		case text[0] == '\n':
			if at++; at == len(lines) {
				lines = append(lines, "")
			}
			text = text[1:]
		case text[0] == '\r':
			text = text[1:]
		default:
			lines[at] += text[:1]
			text = text[1:]
		}
	}
	return strings.Join(lines, "\n")
}
