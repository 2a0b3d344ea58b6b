// Marina-log writes a container's output to files. A shim starts one for each container, by containerd's protocol for
// logging programs: stdout is file 3, stderr file 4, and closing file 5 says that it is ready. Arguments are pairs of a
// key and a value: stdout FILE, stderr FILE, uid N and gid N, whom the pipes are given to so that the container can
// open /dev/stdout.
//
// It exists because a shim that copies by itself stops at the first failed write, and with its pipe full the task hangs
// for good. This one reads on whatever happens: what a full disk does not take is dropped, counted, and told in the
// file once there is room. It ends with the container's output, appends always (so that a file can be truncated under
// it), and depends on neither agent nor containerd.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

// chunk is the size of one read, in bytes: a pipe holds as much.
const chunk = 64 << 10

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "marina-log:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	signal.Ignore(syscall.SIGTERM) // told to a logger whose container is gone: its pipes end by themselves
	opt := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		opt[args[i]] = args[i+1]
	}
	uid, err1 := strconv.Atoi(opt["uid"])
	gid, err2 := strconv.Atoi(opt["gid"])
	if err1 != nil || err2 != nil {
		return fmt.Errorf("uid %q, gid %q: expected numbers", opt["uid"], opt["gid"])
	}
	var copying sync.WaitGroup
	for fd, name := range map[uintptr]string{3: opt["stdout"], 4: opt["stderr"]} {
		if err := syscall.SetNonblock(int(fd), true); err != nil { // waiting then costs no thread
			return err
		}
		from := os.NewFile(fd, "pipe")
		if err := from.Chown(uid, gid); err != nil {
			return err
		}
		to, err := open(name)
		if err != nil {
			return err
		}
		copying.Go(func() { move(to, from) })
	}
	os.NewFile(5, "ready").Close()
	copying.Wait()
	return nil
}

func open(name string) (io.Writer, error) {
	if name == "" {
		return io.Discard, nil
	}
	return os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0o644)
}

// move copies until from ends.
func move(to io.Writer, from io.Reader) {
	buf := make([]byte, chunk)
	lost := 0
	for {
		n, err := from.Read(buf)
		rest := buf[:n]
		if lost > 0 && n > 0 {
			if _, err := fmt.Fprintf(to, "\n[marina: %d bytes of output could not be written and are lost]\n", lost); err == nil {
				lost = 0
			}
		}
		if lost == 0 {
			w, _ := to.Write(rest)
			rest = rest[w:]
		}
		lost += len(rest)
		if err != nil {
			return
		}
	}
}
