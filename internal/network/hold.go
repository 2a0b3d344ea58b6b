package network

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// holds is the ports of the machine this process keeps bound so that nobody else gets them. Traffic never reaches the
// sockets: doors lead it elsewhere, and what no door leads is rejected. Guarded by the Network's mutex.
type holds map[Port]*hold

type hold struct {
	fd  int // -1: not bound, see retake
	who string
}

// take binds the port for who; again for the same does nothing. A port of somebody else's is an ErrAlreadyExists that names
// the owner if it can be told.
func (h holds) take(p Port, who string) error {
	if x := h[p]; x != nil {
		switch {
		case x.who != who:
			return fmt.Errorf("%s port %d is held by %s: %w", p.Protocol, p.Number, x.who, errdefs.ErrAlreadyExists)
		case x.fd >= 0:
			return nil
		}
	}
	fd, err := bind(p)
	if err != nil {
		return err
	}
	h[p] = &hold{fd, who}
	return nil
}

// retake is take for a port that was who's before this process: it counts as who's even if it cannot be bound now.
func (h holds) retake(p Port, who string) error {
	err := h.take(p, who)
	if err != nil && h[p] == nil {
		h[p] = &hold{-1, who}
	}
	return err
}

func (h holds) free(p Port, who string) {
	if x := h[p]; x != nil && x.who == who {
		if x.fd >= 0 {
			unix.Close(x.fd)
		}
		delete(h, p)
	}
}

func (h holds) ports() map[Port]bool {
	out := make(map[Port]bool, len(h))
	for p, x := range h {
		if x.fd >= 0 {
			out[p] = true
		}
	}
	return out
}

// bind takes a port on all addresses of the machine.
func bind(p Port) (int, error) {
	kind := unix.SOCK_STREAM
	if p.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s port %d: %w", p.Protocol, p.Number, err)
	}
	if kind == unix.SOCK_STREAM { // connections that ended a moment ago do not count; a listener does
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(p.Number)})
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 0)
	}
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EADDRINUSE) {
		who := Owner(p)
		if who == "" {
			who = "somebody who cannot be told"
		}
		return -1, fmt.Errorf("%s port %d is taken by %s: %w", p.Protocol, p.Number, who, errdefs.ErrAlreadyExists)
	}
	return -1, fmt.Errorf("%s port %d: %w", p.Protocol, p.Number, err)
}

// probe reports whether a port could be bound now.
func probe(p Port) error {
	fd, err := bind(p)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// Owner tells who has a port of the machine bound: "process 812 (nginx -g daemon off;)". Empty if it cannot be told.
func Owner(p Port) string {
	inodes := map[string]bool{}
	for _, family := range []string{"", "6"} {
		socketInodes("/proc/thread-self/net/"+p.Protocol+family, p, inodes)
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		cmd, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " ")))
	}
	return ""
}

const tcpListen = "0A" // state of a listening socket in /proc/net/tcp

// socketInodes adds the sockets bound to p, as /proc/PID/fd names them.
func socketInodes(path string, p Port, into map[string]bool) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text()) // sl local_address rem_address st ... uid timeout inode
		if len(fields) < 10 || p.Protocol == "tcp" && fields[3] != tcpListen {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil && uint16(n) == p.Number {
			into["socket:["+fields[9]+"]"] = true
		}
	}
}
