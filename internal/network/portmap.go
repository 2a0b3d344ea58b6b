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

// portMap has the ports of the machine that this process keeps bound so that nobody else takes them. Traffic never
// reaches the sockets: frontends redirect it, and what none redirects is rejected. Guarded by the Network's mutex.
type portMap map[Port]*boundPort

type boundPort struct {
	fd    int // -1: not bound, see rebind
	owner string
}

// bind binds the port for owner; again for the same owner it does nothing. A port of another owner or process is an
// ErrAlreadyExists that names it if that is known.
func (m portMap) bind(p Port, owner string) error {
	if x := m[p]; x != nil {
		switch {
		case x.owner != owner:
			return fmt.Errorf("%s port %d is held by %s: %w", p.Protocol, p.Number, x.owner, errdefs.ErrAlreadyExists)
		case x.fd >= 0:
			return nil
		}
	}
	fd, err := bindSocket(p)
	if err != nil {
		return err
	}
	m[p] = &boundPort{fd, owner}
	return nil
}

// rebind binds a port that was owner's before this process started. It counts as owner's even if it cannot be bound
// now.
func (m portMap) rebind(p Port, owner string) error {
	err := m.bind(p, owner)
	if err != nil && m[p] == nil {
		m[p] = &boundPort{-1, owner}
	}
	return err
}

func (m portMap) release(p Port, owner string) {
	if x := m[p]; x != nil && x.owner == owner {
		if x.fd >= 0 {
			unix.Close(x.fd)
		}
		delete(m, p)
	}
}

func (m portMap) bound() map[Port]bool {
	out := make(map[Port]bool, len(m))
	for p, x := range m {
		if x.fd >= 0 {
			out[p] = true
		}
	}
	return out
}

// bindSocket binds a port on all addresses of the machine.
func bindSocket(p Port) (int, error) {
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

// checkFree returns the error that binding the port would give now.
func checkFree(p Port) error {
	fd, err := bindSocket(p)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// Owner names the process that has a port of the machine bound: "process 812 (nginx -g daemon off;)". Empty if unknown.
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

// socketInodes adds to into the sockets bound to p, as /proc/PID/fd names them.
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
