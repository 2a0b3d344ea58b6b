package testbed

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/marinaos/marina/internal/network"
)

// markName is the variable by which a datacenter's processes are found: they inherit it, tasks do not.
const markName = "MARINA_HOUSE"

// commandLimit bounds one marina command.
const commandLimit = 4 * time.Minute

// Datacenter is one datacenter on this machine.
type Datacenter struct {
	*Workshop
	State   string // directory
	Reports string // directory where tasks tell the reports
	ID      string // by which the datacenter names what it has on the machine
	HTTPS   string // where the gateway listens, by loopback
	HTTP    string
	Agents  string   // where the master listens for agents
	Env     []string // of marina commands
	flags   []string // of marina up
	mark    string

	forward   string          // net.ipv4.ip_forward before it came
	strangers map[string]bool // files that were there before it came

	mu      sync.Mutex
	ranges  []netip.Prefix // its addresses; guarded by mu
	witness *Trace         // what there was of it; guarded by mu
}

// New gives a datacenter its place. Nothing is started. Flags are added to those of `marina up`.
func (w *Workshop) New(flags ...string) (*Datacenter, error) {
	state, err := os.MkdirTemp("/tmp", "mh") // short: sockets are in it
	if err != nil {
		return nil, err
	}
	if err := os.Remove(state); err != nil { // marina makes it
		return nil, err
	}
	reports, err := os.MkdirTemp("/tmp", "mt")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(reports, 0o777); err != nil { // tasks are nobody
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(state))
	h := &Datacenter{Workshop: w, State: state, Reports: reports, ID: hex.EncodeToString(sum[:4]), mark: rand.Text(),
		HTTPS: "127.0.0.1:" + ports[0], HTTP: "127.0.0.1:" + ports[1], Agents: "127.0.0.1:" + ports[2],
		forward: sysctl("net/ipv4/ip_forward"), strangers: presentStrangers()}
	h.flags = append([]string{"--https", ":" + ports[0], "--http", h.HTTP, "--agent-port", ":" + ports[2], "--host-volume",
		reports}, flags...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MARINA_") {
			h.Env = append(h.Env, e)
		}
	}
	runtime := w.Runtime
	if i := slices.Index(flags, "--runtime"); i >= 0 {
		runtime = flags[i+1] // processes that the datacenter starts read the variable before its settings
	}
	h.Env = append(h.Env, markName+"="+h.mark, "MARINA_STATE="+state, "MARINA_RUNTIME="+runtime, "HOME="+reports,
		"XDG_CONFIG_HOME="+reports+"/.config")
	return h, nil
}

// Ranges are flags for address ranges that nobody on this machine has: datacenters that do not test the defaults use
// them.
func Ranges() ([]string, error) {
	routes, err := network.CompleteList(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	free := func(p netip.Prefix) bool {
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			a, _ := netip.AddrFromSlice(r.Dst.IP.To4())
			bits, _ := r.Dst.Mask.Size()
			if bits > 0 && netip.PrefixFrom(a, bits).Overlaps(p) {
				return false
			}
		}
		return true
	}
	var b [2]byte
	rand.Read(b[:])
	pool, vips := "", ""
	for i := range 128 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + (b[0]+byte(i))%128, 0, 0}), 16)
		if pool == "" && free(p) {
			pool = p.String()
		}
		v := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18 + b[1]%2, (b[1]/2 + byte(i)) % 16 * 16, 0}), 20)
		if i >= 16 { // both ranges of that kind are taken as a whole
			v = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, byte(i) % 16 * 16, 0}), 20)
		}
		if vips == "" && free(v) {
			vips = v.String()
		}
	}
	return []string{"--pool", pool, "--vips", vips}, nil
}

// Open is New and Up, with ranges that nobody has.
func (w *Workshop) Open(flags ...string) (*Datacenter, error) {
	ranges, err := Ranges()
	if err != nil {
		return nil, err
	}
	h, err := w.New(append(ranges, flags...)...)
	if err != nil {
		return nil, err
	}
	if _, err := h.Up(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, h.Load(w.Probe)
}

// Open starts a datacenter for one test. It is taken away at the end; of a test that failed the logs are kept. Where
// real containers cannot be had the test is skipped, unless MARINA_REQUIRE_REAL asks for them.
func Open(t testing.TB) *Datacenter {
	t.Helper()
	w, err := OpenWorkshop()
	if errors.Is(err, ErrNotReal) && os.Getenv("MARINA_REQUIRE_REAL") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	h, err := w.Open()
	if err != nil {
		t.Fatal(err)
	}
	h.CloseAfter(t)
	return h
}

// CloseAfter takes the datacenter away when the test ends, and keeps its logs if the test failed.
func (h *Datacenter) CloseAfter(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	h.KeepLogs(t) // before that
}

// KeepLogs keeps the logs of the datacenter if the test fails.
func (h *Datacenter) KeepLogs(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			dir := t.ArtifactDir()
			t.Logf("logs of the datacenter, kept with -artifacts: %s, %v", dir, h.SaveLogs(dir))
		}
	})
}

// Up is `marina up`; it returns what it printed.
func (h *Datacenter) Up() (string, error) { return h.UpAs(h.Marina) }

// UpAs is Up with another program.
func (h *Datacenter) UpAs(program string) (string, error) {
	o := h.run(program, nil, append([]string{"up"}, h.flags...)...)
	return o.Out + o.Err, o.err()
}

// Load loads an image's archive.
func (h *Datacenter) Load(archive string) error {
	o := h.Run("image", "load", archive, "--quiet")
	return o.err()
}

// Output is the end of a command.
type Output struct {
	Out, Err string
	Code     int
	args     []string
}

func (o Output) err() error {
	if o.Code == 0 {
		return nil
	}
	return fmt.Errorf("marina %s ended with %d: %s", strings.Join(o.args, " "), o.Code, strings.TrimSpace(o.Err+o.Out))
}

// Run runs the marina command as root on the machine.
func (h *Datacenter) Run(args ...string) Output { return h.run(h.Marina, nil, args...) }

func (h *Datacenter) run(program string, stdin []byte, args ...string) Output {
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Stdin = h.Env, bytes.NewReader(stdin)
	return finish(cmd, args)
}

func finish(cmd *exec.Cmd, args []string) Output {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errOut, time.Second
	if err := cmd.Start(); err != nil {
		return Output{Code: -1, Err: err.Error(), args: args}
	}
	limit := time.AfterFunc(commandLimit, func() { cmd.Process.Kill() })
	defer limit.Stop()
	err := cmd.Wait()
	o := Output{Out: out.String(), Err: errOut.String(), args: args, Code: cmd.ProcessState.ExitCode()}
	if err != nil && o.Code == 0 {
		o.Code, o.Err = -1, o.Err+err.Error()
	}
	return o
}

// Must runs the marina command and returns its standard output; another exit code than 0 fails the test.
func (h *Datacenter) Must(t testing.TB, args ...string) string {
	t.Helper()
	o := h.Run(args...)
	if err := o.err(); err != nil {
		t.Fatal(err)
	}
	return o.Out
}

// Feed is Must with standard input.
func (h *Datacenter) Feed(t testing.TB, stdin any, args ...string) string {
	t.Helper()
	b, err := json.Marshal(stdin)
	if err != nil {
		t.Fatal(err)
	}
	o := h.run(h.Marina, b, args...)
	if err := o.err(); err != nil {
		t.Fatal(err)
	}
	return o.Out
}

// PID is one of the datacenter's processes: daemon or agent, by its pid file, or containerd, by its configuration file.
func (h *Datacenter) PID(name string) (int, error) {
	if name == "containerd" {
		return h.containerd()
	}
	b, err := os.ReadFile(filepath.Join(h.State, "run", name+".pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func (h *Datacenter) containerd() (int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		cmd, _ := os.ReadFile(dir + "/cmdline")
		program, args, _ := strings.Cut(string(cmd), "\x00")
		if filepath.Base(program) == "containerd" && strings.Contains(args, h.State) { // also behind a link
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("no containerd of %s runs", h.State)
}

// SaveLogs copies what the datacenter's processes logged into a directory.
func (h *Datacenter) SaveLogs(dir string) error {
	var errs []error
	for _, name := range []string{"log/daemon.log", "log/agent.log", "runtime/containerd.log"} {
		b, err := os.ReadFile(filepath.Join(h.State, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close takes the datacenter away and returns an error that lists what stays, if anything does.
func (h *Datacenter) Close() error {
	o := h.Run("down", "--clean-state", "--yes")
	err := o.err()
	if left := h.leftovers(); left != nil {
		err = errors.Join(err, fmt.Errorf("left on the machine after down --clean-state:\n%w\n%s%s", left, o.Out, o.Err))
	}
	if err != nil { // leave no more behind than cannot be helped
		h.end()
		h.Run("down", "--clean-state", "--yes")
	}
	return errors.Join(err, os.RemoveAll(h.Reports))
}

// The ports datacenters listen on: below those the kernel gives to clients, above those tasks get.
const (
	firstPort = 32001
	lastPort  = 32767
)

func freePorts(n int) ([]string, error) {
	var out []string
	var b [2]byte
	rand.Read(b[:])
	for i := range lastPort - firstPort + 1 {
		port := strconv.Itoa(firstPort + (int(b[0])<<8+int(b[1])+i)%(lastPort-firstPort+1))
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			continue
		}
		l.Close()
		if out = append(out, port); len(out) == n {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%d ports from %d to %d are not free", n, firstPort, lastPort)
}
