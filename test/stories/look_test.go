package stories

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/marinaos/marina/test/testbed"
)

func TestACommandRunsInATaskAndItsCodeComesBack(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/shell"
	removeAfter(t, c, id)
	c.Deploy(t, testbed.Definition{"id": id, "cmd": "sleep 100000", "cpus": 0.1, "mem": 32, "networks": []any{testbed.Definition{"mode": "container/bridge"}}})

	o := h.Run("task", "exec", id, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if o.Code != 7 || o.Out != "out\n" || o.Err != "err\n" {
		t.Errorf("got %+v, want out, err and code 7", o)
	}
	if o := h.Run("task", "exec", id, "--", "sh", "-c", "kill -9 $$"); o.Code != 128+9 {
		t.Errorf("a command killed by signal 9: got code %d, want %d", o.Code, 128+9)
	}
	if o := h.Run("task", "exec", id, "--", "no-such-program"); o.Code == 0 || !strings.Contains(o.Err, "no-such-program") {
		t.Errorf("a program that is not there: got %+v, want an error that names it", o)
	}
	big := strings.Repeat("0123456789\n", 100_000)
	cmd := exec.Command(h.Marina, "task", "exec", id, "--", "cat")
	cmd.Env, cmd.Stdin = h.Env, strings.NewReader(big)
	if out, err := cmd.Output(); err != nil || string(out) != big {
		t.Errorf("a megabyte through cat: got %d bytes, %v, want %d", len(out), err, len(big))
	}
	if o := h.Run("task", "exec", id, "--", "id", "-u"); strings.TrimSpace(o.Out) != "65534" {
		t.Errorf("a task without an image runs as %q, want nobody, 65534", o.Out)
	}
	text := terminal(t, h, 132, 43, "task", "exec", "--tty", id, "--", "sh", "-c", "tty; stty size; exit 5")
	if !strings.Contains(text, "/dev/pts/") || !strings.Contains(text, "43 132") || !strings.Contains(text, "ended with 5") {
		t.Errorf("in a terminal: got %q, want a terminal's name, its size 43 132, and code 5", text)
	}
}

// terminal runs the command in a terminal of a size and returns what is on it at the end, and how it ended.
func terminal(t *testing.T, h *testbed.Datacenter, columns, rows uint16, args ...string) string {
	t.Helper()
	front, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	fd := int(front.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	back, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Marina, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = h.Env, back, back, back
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	back.Close()
	var screen bytes.Buffer
	read := make(chan error, 1)
	go func() { // ends with an error when the last holder of the other side is gone
		_, err := screen.ReadFrom(front)
		read <- err
	}()
	cmd.Wait()
	<-read
	return screen.String() + fmt.Sprintf("ended with %d", cmd.ProcessState.ExitCode())
}

func TestALogIsFollowedAcrossRotationAndOutlivesItsTask(t *testing.T) {
	t.Parallel()
	h, c := datacenter(t)
	const id = "/talks"
	const rounds, each = 2, 120_000 // lines of 100 bytes: each round is 12 MB, of which a file keeps 10 MiB at most
	removeAfter(t, c, id)
	c.Deploy(t, h.ProbeApp(id, 1).With(testbed.Definition{"cpus": 0.1, "mem": 64}))
	task := c.App(t, id).Tasks[0]

	follower := exec.CommandContext(t.Context(), h.Marina, "task", "log", "--follow", id)
	follower.Env = h.Env
	out, err := follower.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	followed := make(chan error, 1)
	go func() { followed <- consecutive(out, rounds*each) }()
	for round := 1; round <= rounds; round++ {
		post(t, fmt.Sprintf("http://%s:8080/print?n=%d", task.Address(), each))
		testbed.Until(t, 20*time.Second, "a rotation", func() error {
			if n := rotations(t, c, task.ID); n < round {
				return fmt.Errorf("%d files were rotated after %d rounds", n, round)
			}
			return nil
		})
	}
	select {
	case err := <-followed:
		if err != nil {
			t.Errorf("following: %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Error("following did not come to the last line within a minute")
	}
	follower.Process.Kill()
	follower.Wait()

	for _, path := range []string{"/files/..%2f..%2f..%2f..%2fetc%2fpasswd", "/files/%2e%2e/%2e%2e/", "/logs/..%2fstdout"} {
		if a, err := c.Do("GET", testbed.TaskPath(task.ID)+path, nil); err != nil || a.Status/100 != 4 {
			t.Errorf("%s: got %v, %v, want a refusal", path, a, err)
		}
	}
	last := fmt.Sprintf("line %d ", rounds*each)
	if text := h.Must(t, "task", "log", "--lines", "3", id); !strings.Contains(text, last) || strings.Count(text, "\n") != 3 {
		t.Errorf("the last 3 lines: got %q, want 3 with %q", text, last)
	}

	client := &http.Client{Timeout: 10 * time.Second}
	if resp, err := client.Post("http://"+task.Address()+":8080/exit?code=4", "", nil); err == nil { // it does not live to answer
		resp.Body.Close()
		t.Errorf("a task that exits answers %s", resp.Status)
	}
	testbed.Until(t, 20*time.Second, "the end of the task", func() error {
		if f := c.App(t, id).LastFailure; f == nil || f.TaskID != task.ID {
			return fmt.Errorf("lastTaskFailure %+v", f)
		}
		return nil
	})
	if text := h.Must(t, "task", "log", "--lines", "3", task.ID); !strings.Contains(text, last) {
		t.Errorf("the log of the ended task: got %q, want %q in it", text, last)
	}
	c.Settle(t, id, 30*time.Second)
}

// rotations counts the files that a task's output was rotated into.
func rotations(t *testing.T, c *testbed.Client, task string) int {
	t.Helper()
	var files []struct{ Name string }
	c.Ask(t, "GET", testbed.TaskPath(task)+"/files/", nil, 200, &files)
	n := 0
	for _, f := range files {
		if strings.HasPrefix(f.Name, "stdout.") {
			n++
		}
	}
	return n
}

// consecutive reads numbered lines up to the last one; a gap is an error.
func consecutive(r io.Reader, last int) error {
	next := 1
	for lines := bufio.NewScanner(r); next <= last; {
		if !lines.Scan() {
			return fmt.Errorf("it ended before line %d: %v", next, lines.Err())
		}
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "line %d ", &n); err != nil {
			continue // what else the task says
		}
		if n != next {
			return fmt.Errorf("line %d after line %d", n, next-1)
		}
		next++
	}
	return nil
}
