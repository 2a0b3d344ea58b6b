package etcd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/store"
)

// The test binary is also the process that tests kill and pause: these variables select its part.
const (
	childRole = "MARINA_TEST_STORE_ROLE"
	childArg  = "MARINA_TEST_STORE_ARG"
)

func TestMain(m *testing.M) {
	roles := map[string]func(arg string) error{"writer": writer, "leader": leader}
	role := os.Getenv(childRole)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Getenv(childArg)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is such a process, with the lines that it prints.
type child struct {
	*exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startChild(t *testing.T, role, arg string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childArg+"="+arg)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &child{Cmd: cmd, in: in, lines: bufio.NewScanner(out)}
}

// line returns the next line that the child prints, "" at the end.
func (c *child) line() string {
	if c.lines.Scan() {
		return c.lines.Text()
	}
	return ""
}

// writer opens the member in dir and commits pairs of rows from several goroutines until it is killed. It prints what
// was acknowledged.
func writer(dir string) error {
	fmt.Println("opening")
	s, err := OpenEmbedded(context.Background(), Embedded{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println("open")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := 0; err == nil; n++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, n)
				txn := store.Txn{
					Guards: []store.Guard{store.Absent("a/" + id)},
					Ops:    []store.Op{store.Put("a/"+id, []byte(id)), store.Put("b/"+id, []byte(id))},
				}
				if _, err := s.Commit(context.Background(), txn); err != nil {
					fmt.Fprintln(os.Stderr, "commit:", err)
					os.Exit(1)
				}
				fmt.Println(id)
			}
		})
	}
	wg.Wait()
	return nil
}

// leader leads over the socket; after a line on its input it writes under its fence and prints the outcome.
func leader(socket string) error {
	ctx := context.Background()
	s, err := OpenExternal(ctx, External{Endpoints: []string{"unix://" + socket}, LeaseTTL: 2 * time.Second})
	if err != nil {
		return err
	}
	l, err := s.Campaign(ctx, "e", "child")
	if err != nil {
		return err
	}
	fmt.Println(l.Epoch())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	_, err = s.Commit(ctx, store.Txn{Guards: []store.Guard{l.Fence()}, Ops: []store.Op{store.Put("row", []byte("late"))}})
	switch {
	case err == nil:
		fmt.Println("written")
	case errors.Is(err, store.ErrFenced):
		fmt.Println("fenced")
	default:
		fmt.Println(err)
	}
	<-l.Context().Done()
	if cause := context.Cause(l.Context()); !errors.Is(cause, store.ErrLeadershipLost) {
		fmt.Println(cause)
	}
	fmt.Println("lost")
	return s.Close()
}

func epochOf(t *testing.T, line string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatalf("epoch: got %q", line)
	}
	return n
}
