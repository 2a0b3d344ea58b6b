// Probe is the program in the images that tests run: it looks around in its container, or behaves badly there.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Report describes a container as the program in it sees it.
type Report struct {
	UID, GID  int
	Dir       string
	Args, Env []string
	Hostname  string
	UIDMap    string
	Status    map[string]string // of /proc/self/status
	Refused   map[string]string // what must not work, with the error
	Allowed   map[string]string // what must, with the error
	Files     uint64            // RLIMIT_NOFILE
	Cgroup    string
	Processes int
}

func main() {
	verb := os.Args[1]
	if f := verbs[verb]; f != nil {
		f(os.Args[2:])
		return
	}
	fmt.Fprintln(os.Stderr, "unknown verb", verb)
	os.Exit(64)
}

var verbs = map[string]func([]string){
	"report": report, "fork": fork, "eat": eat, "spin": spin, "tick": tick, "echo": echo,
	"stubborn": func([]string) { signal.Ignore(syscall.SIGTERM); fmt.Println("ready"); time.Sleep(time.Hour) },
	"polite":   polite,
	"exit":     func(a []string) { n, _ := strconv.Atoi(a[0]); os.Exit(n) },
	"size":     size,
	"fill":     fill,
}

// fill writes so many MiB into the container's own layer, and stays.
func fill(a []string) {
	n, _ := strconv.Atoi(a[0])
	if err := os.WriteFile("/filling", make([]byte, n<<20), 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

func read(name string) string {
	b, _ := os.ReadFile(name)
	return strings.TrimSpace(string(b))
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func report([]string) {
	r := Report{UID: os.Getuid(), GID: os.Getgid(), Args: os.Args, Env: os.Environ(), UIDMap: strings.Join(strings.Fields(read("/proc/self/uid_map")), " "),
		Status: map[string]string{}, Cgroup: read("/proc/self/cgroup")}
	r.Dir, _ = os.Getwd()
	r.Hostname, _ = os.Hostname()
	for line := range strings.Lines(read("/proc/self/status")) {
		k, v, _ := strings.Cut(line, ":")
		r.Status[k] = strings.TrimSpace(v)
	}
	var lim syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim)
	r.Files = lim.Max
	keys, masked := os.ReadFile("/proc/keys")
	if masked == nil && len(keys) == 0 {
		masked = errors.New("empty")
	}
	sock, raw := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	if raw == nil {
		syscall.Close(sock)
	}
	r.Refused = map[string]string{
		"write /proc/sys":   text(os.WriteFile("/proc/sys/kernel/hostname", []byte("x"), 0)),
		"write /proc/sysrq": text(os.WriteFile("/proc/sysrq-trigger", []byte("h"), 0)),
		"read /proc/keys":   text(masked),
		"write /sys":        text(os.WriteFile("/sys/kernel/mm/ksm/run", []byte("0"), 0)),
		"raw socket":        text(raw),
		"mknod":             text(syscall.Mknod("/dev/probe", syscall.S_IFBLK|0o600, 8<<8)),
		"mount":             text(syscall.Mount("none", "/mnt", "tmpfs", 0, "")),
		"unshare user":      text(syscall.Unshare(syscall.CLONE_NEWUSER)),
		"write cgroup":      text(os.MkdirAll("/sys/fs/cgroup/memory/x", 0o755)),
	}
	l, listen := net.Listen("tcp", ":80")
	if listen == nil {
		l.Close()
	}
	r.Allowed = map[string]string{
		"listen :80":     text(listen),
		"write sandbox":  text(os.WriteFile("/mnt/mesos/sandbox/written", []byte("x"), 0o644)),
		"write /dev/shm": text(os.WriteFile("/dev/shm/x", []byte("x"), 0o644)),
		"write /tmp":     text(os.WriteFile("/tmp/x", []byte("x"), 0o644)),
	}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err == nil {
			r.Processes++
		}
	}
	json.NewEncoder(os.Stdout).Encode(r)
}

// fork starts processes until it may not, and says how many it got.
func fork([]string) {
	n := 0
	for n < 10_000 {
		if err := exec.Command("/probe", "stubborn").Start(); err != nil {
			fmt.Println("stopped", n, err)
			return
		}
		n++
	}
	fmt.Println("never stopped")
}

func eat([]string) {
	var kept [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
}

func spin([]string) {
	for {
	}
}

// tick writes its pid and a rising number, for as long as it lives, with a mark on stderr at the start.
func tick([]string) {
	fmt.Fprintln(os.Stderr, "ticking")
	for n := 0; ; n++ {
		fmt.Println(os.Getpid(), n)
		time.Sleep(10 * time.Millisecond)
	}
}

func echo([]string) {
	s := bufio.NewScanner(os.Stdin)
	for s.Scan() {
		fmt.Println("out:", s.Text())
		fmt.Fprintln(os.Stderr, "err:", s.Text())
	}
	io.Copy(io.Discard, os.Stdin)
	os.Exit(3)
}

func polite([]string) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	<-c
	os.Exit(7)
}

// size prints the terminal's size whenever it changes.
func size([]string) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	for {
		cols, rows, err := winsize()
		fmt.Println(cols, rows, err)
		if cols == 132 {
			return
		}
		<-c
	}
}
