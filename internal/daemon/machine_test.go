package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/settings"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBundlesAreFoundWhereACheckoutAndAReleaseHaveThem(t *testing.T) {
	checkout, release := t.TempDir(), t.TempDir()
	write(t, filepath.Join(checkout, "bundle/kubernetes/v1.37/bin/VERSION"), "v1.37.2\n")
	write(t, filepath.Join(checkout, "bundle/kubernetes/half/bin/kubelet"), "no VERSION: not whole")
	write(t, filepath.Join(release, "kubernetes/node/VERSION"), "abc")
	a := &config{Datacenter: settings.Datacenter{Runtime: filepath.Join(checkout, "bundle/runtime/bin")}}
	b := &config{Datacenter: settings.Datacenter{Runtime: filepath.Join(release, "runtime")}}
	for _, tc := range []struct {
		c    *config
		name string
		want string
	}{
		{a, "runtime", a.Runtime},
		{a, "kubernetes/v1.37", filepath.Join(checkout, "bundle/kubernetes/v1.37/bin")},
		{a, "kubernetes/half", ""},
		{a, "kubernetes/none", ""},
		{a, "../../etc", ""},
		{a, "/etc", ""},
		{b, "kubernetes/node", filepath.Join(release, "kubernetes/node")},
	} {
		got, ok := tc.c.bundle(tc.name)
		if ok != (tc.want != "") || ok && filepath.Clean(got) != tc.want {
			t.Errorf("bundle %q is %q, %v; want %q", tc.name, got, ok, tc.want)
		}
	}
	if got := a.bundles(); got["kubernetes/v1.37"] != "v1.37.2" || got["runtime"] != Version || len(got) != 2 {
		t.Errorf("a checkout has %v", got)
	}
	if got := b.bundles(); got["kubernetes/node"] != "abc" || len(got) != 2 {
		t.Errorf("a release has %v", got)
	}
}

func TestRangesThatCannotBeReadAreNoFirstStart(t *testing.T) {
	for what, text := range map[string]string{"torn": `{"pool":"10.7`, "empty": ``, "half": `{"pool":"10.77.0.0/16"}`,
		"no ranges": `{"pool":1,"vips":2}`} {
		s := given(t)
		c, err := complete(s)
		if err != nil {
			t.Fatal(err)
		}
		write(t, c.rangesFile(), text)
		if _, err := resolve(s); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "ranges.json") {
			t.Errorf("%s: %v, want that the file is damaged: a new choice would give what runs other addresses", what, err)
		}
		if b, err := os.ReadFile(c.rangesFile()); err != nil || string(b) != text {
			t.Errorf("%s: the file is %q (%v), want it as it was", what, b, err)
		}
		if _, err := complete(s); err != nil {
			t.Errorf("%s: %v; what takes a datacenter down needs no ranges", what, err)
		}
	}
}

func TestWhatIsSaidOfRangesIsCheckedAndKept(t *testing.T) {
	s := given(t)
	s.Pool = "10.200.1.2/16"
	c, err := resolve(s)
	if err != nil || c.pool != netip.MustParsePrefix("10.200.0.0/16") || c.vips.Bits() != 20 {
		t.Errorf("pool %v, vips %v (%v), want the pool that was said and free VIPs", c.pool, c.vips, err)
	}
	for _, bad := range []string{"10.0.0.0", "10.0.0.0/7", "10.0.0.0/21", "fd00::/16", "x"} {
		s.Pool = bad
		if _, err := resolve(s); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), bad) {
			t.Errorf("pool %q: %v, want it refused by name", bad, err)
		}
	}
	s.Pool, s.VIPs = "", "198.18.0.0/25"
	if _, err := resolve(s); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "VIP range") {
		t.Errorf("VIPs %s: %v, want them refused", s.VIPs, err)
	}
}

func TestSixteenDatacentersOfAMachineHavePortsOfTheirOwn(t *testing.T) {
	standard := &config{Datacenter: settings.Datacenter{State: settings.State}}
	if got := standard.hostPorts(); got != (kernel.PortRange{First: 31000, Last: 32000}) {
		t.Errorf("the usual state has ports %v", got)
	}
	if got := standard.published(); got != (kernel.PortRange{}) {
		t.Errorf("the usual state publishes %v, want the default", got)
	}
	host, published := map[uint16]bool{}, map[uint16]bool{}
	for seed := range 16 {
		c := &config{Datacenter: settings.Datacenter{State: "/srv/marina"}, seed: byte(seed)}
		for p := c.hostPorts().First; p <= c.hostPorts().Last; p++ {
			if host[p] || p >= 32768 {
				t.Fatalf("port %d of instance %d is another's, or the kernel's", p, seed)
			}
			host[p] = true
		}
		for p := c.published().First; p <= c.published().Last; p++ {
			if published[p] || host[p] {
				t.Fatalf("published port %d of instance %d is another's", p, seed)
			}
			published[p] = true
		}
	}
}

func TestTheAgentDialsWhereItsMasterListens(t *testing.T) {
	for listen, want := range map[string]string{":8444": "127.0.0.1:8444", "0.0.0.0:9": "127.0.0.1:9",
		"10.0.0.5:8444": "10.0.0.5:8444", "[::]:8": "127.0.0.1:8", "host:7": "127.0.0.1:7"} {
		c := &config{Datacenter: settings.Datacenter{AgentPort: listen}}
		if got := c.master(); got != want {
			t.Errorf("listening at %q: %q, want %q", listen, got, want)
		}
	}
	if host, port := split("nonsense"); host != "nonsense" || port != 0 {
		t.Errorf("split: %q %d", host, port)
	}
}

func TestTheAddressForOthersIsOneOfThisMachine(t *testing.T) {
	if a, err := advertised("203.0.113.9"); err != nil || a.String() != "203.0.113.9" {
		t.Errorf("said: %v (%v)", a, err)
	}
	if _, err := advertised("host.example"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a name: %v, want it refused", err)
	}
	a, err := advertised("")
	if err != nil {
		t.Fatal(err)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range own {
		if n, ok := o.(*net.IPNet); ok && n.IP.String() == a.String() {
			return
		}
	}
	t.Errorf("advertises %v, which is none of %v", a, own)
}

func TestPathsLieInsideOrNot(t *testing.T) {
	for _, tc := range []struct {
		name, dir string
		want      bool
	}{{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/a", "/a/b", false}, {"/a/../b", "/a",
		false}, {"/a/b/../c", "/a", true}} {
		if got := inside(tc.name, tc.dir); got != tc.want {
			t.Errorf("%s inside %s: %v, want %v", tc.name, tc.dir, got, tc.want)
		}
	}
}

func TestTheRuntimeIsLookedForBesideTheBinary(t *testing.T) {
	s := given(t)
	s.Runtime = ""
	_, err := complete(s)
	if err == nil { // a machine with an installed Marina
		t.Skip("this machine has a runtime in its usual place")
	}
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "--runtime") ||
		!strings.Contains(err.Error(), "make build") {
		t.Errorf("got %v, want what to do", err)
	}
}

func caPEM(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestWhichDatacenterThisIsIsWrittenForEverybody(t *testing.T) {
	c := completed(t)
	if _, _, err := c.readDatacenter(); !errdefs.IsNotFound(err) {
		t.Errorf("before the first start: %v, want that there is none", err)
	}
	if err := c.writeDatacenter("dc-1", caPEM(t)); err != nil {
		t.Fatal(err)
	}
	id, pool, err := c.readDatacenter()
	if err != nil || id != "dc-1" || pool == nil {
		t.Errorf("read %s (%v)", id, err)
	}
	before, err := os.Stat(c.datacenterFile())
	if err != nil || before.Mode().Perm() != 0o644 {
		t.Errorf("written as %v (%v), want mode 0644", before, err)
	}
	b, err := os.ReadFile(c.datacenterFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(c.datacenterFile(), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(c.datacenterFile()); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same content was written anew (%v): a full disk would stop a start", err)
	}
	for what, text := range map[string]string{"torn": string(b[:20]), "no CA": `{"id":"dc-1","ca":"x"}`, "empty": ""} {
		write(t, c.datacenterFile(), text)
		if _, _, err := c.readDatacenter(); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "marina up") {
			t.Errorf("%s: %v, want that it is damaged and what writes it anew", what, err)
		}
	}
}

func TestAnEmptyAgentIDIsNotReplaced(t *testing.T) {
	c := completed(t)
	write(t, c.path("agent.id"), "\n")
	if id, err := c.agentID(); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "marina machine list") {
		t.Errorf("got %q (%v), want an error that tells where the name is known", id, err)
	}
}

func TestRemovingAStateLeavesWhatTheFilesystemHas(t *testing.T) {
	c := completed(t)
	for _, name := range []string{"lost+found/x", "etcd/member", "run/daemon.pid", "agent.id"} {
		write(t, c.path(name), "x")
	}
	if err := c.removeState(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(c.State)
	if err != nil || len(left) != 1 || left[0].Name() != "lost+found" {
		t.Errorf("left %v (%v), want lost+found alone", left, err)
	}
	if err := c.removeState(); err != nil {
		t.Errorf("again: %v, want it harmless", err)
	}
	bare := completed(t)
	if err := bare.removeState(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bare.State); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty state: %v, want it gone", err)
	}
	if err := bare.removeState(); err == nil {
		t.Error("a state that is not there was removed without a word")
	}
}

func TestAStateDirectoryIsKnownByWhatADatacenterLeavesInIt(t *testing.T) {
	for name, ours := range map[string]bool{"datacenter.json": true, "root.key": true, "run/daemon.pid": true,
		"settings.json": true, "log/daemon.log": true,
		"lost+found/x": true, "photos/cat.jpg": false, ".profile": false} {
		c := completed(t)
		write(t, c.path(name), "x")
		if err := c.checkState(); (err == nil) != ours || err != nil && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("a directory with %s: %v, want ours %v", name, err, ours)
		}
	}
	c := completed(t)
	write(t, c.path("root.key"), "x")
	write(t, c.path("photos/cat.jpg"), "x")
	if err := c.checkState(); err != nil {
		t.Errorf("a datacenter's directory with something else in it: %v, want it to stay one", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "x")
	c.State = file
	if err := c.checkState(); err == nil {
		t.Error("a file is no state directory")
	}
}

func TestPreflightNamesWhoHasThePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := loopback(t)
	s.HTTPS = l.Addr().String()
	var found []string
	for _, f := range Preflight(t.Context(), s) {
		if strings.Contains(f.What, "is taken") {
			found = append(found, f.What+" -> "+f.Do)
		}
	}
	if len(found) != 1 || !strings.HasPrefix(found[0], "port "+s.HTTPS+" is taken") ||
		!strings.HasSuffix(found[0], "--https") {
		t.Errorf("found %q, want the port that is taken and its flag", found)
	}
	s.HTTPS, s.HTTP = port(t), settings.Off
	c, err := resolve(s)
	if err != nil {
		t.Fatal(err)
	}
	if f := ports(t.Context(), c); len(f) != 1 || f[0].Severity != kernel.Good {
		t.Errorf("found %+v, want all ports free", f)
	}
	release, err := c.writePID(t.Context(), c.daemonPID())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if f := ports(t.Context(), c); len(f) != 1 || !strings.Contains(f[0].What, "runs already") {
		t.Errorf("found %+v, want that the daemon itself has them", f)
	}
}

func TestPreflightOfSettingsThatCannotBeIsOneFinding(t *testing.T) {
	s := given(t)
	s.Placement = "nowhere"
	if f := Preflight(t.Context(), s); len(f) != 1 || f[0].Severity != kernel.Fatal ||
		!strings.Contains(f[0].What, "nowhere") {
		t.Errorf("found %+v, want what is wrong with the settings", f)
	}
}

func TestProgramsAndSpaceAreLookedAt(t *testing.T) {
	c := completed(t)
	for _, p := range []string{"containerd", "containerd-shim-runc-v2", "runc", "bridge", "loopback", "static"} {
		write(t, filepath.Join(c.Runtime, p), "")
	}
	if f := programs(t.Context(), c); len(f) == 0 || f[0].Severity != kernel.Good ||
		f[0].What != "container runtime in "+c.Runtime {
		t.Errorf("found %+v, want all programs", f)
	}
	if err := os.Remove(filepath.Join(c.Runtime, "runc")); err != nil {
		t.Fatal(err)
	}
	if f := programs(t.Context(), c); f[0].Severity != kernel.Fatal || !strings.Contains(f[0].What, "runc is missing") {
		t.Errorf("found %+v, want that runc is missing", f)
	}
	c.State = filepath.Join(c.State, "not", "yet", "there")
	if f := filesystem(t.Context(), c); len(f) != 1 || !strings.Contains(f[0].What, " free") {
		t.Errorf("found %+v, want the space of the filesystem that it will be on", f)
	}
	c.State = c.Runtime
	write(t, filepath.Join(c.Runtime, "photo"), "")
	if f := filesystem(t.Context(), c); len(f) != 1 || f[0].Severity != kernel.Fatal {
		t.Errorf("found %+v, want that somebody else's directory is refused", f)
	}
}

func TestAnAgentNeedsADatacenter(t *testing.T) {
	s := given(t)
	if err := RunAgent(t.Context(), s); !errdefs.IsNotFound(err) ||
		!strings.Contains(err.Error(), "no datacenter was started") {
		t.Errorf("got %v, want that none was started here", err)
	}
	s.Placement = "nowhere"
	for what, err := range map[string]error{"agent": RunAgent(t.Context(), s), "daemon": Run(t.Context(), s),
		"down": Down(t.Context(), s, io.Discard)} {
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s with settings that cannot be: %v, want them refused", what, err)
		}
	}
}

func TestRequestsOfTheInputAreFramed(t *testing.T) {
	var b bytes.Buffer
	input := strings.Repeat("x", kernel.MaxExecFrame+10)
	if err := feed(&b, []string{"cat", "-"}, strings.NewReader(input)); err != nil {
		t.Fatal(err)
	}
	var kinds []kernel.ExecKind
	var in []byte
	for {
		kind, payload, err := kernel.ReadExecFrame(&b)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if kinds = append(kinds, kind); kind == kernel.ExecStdin {
			in = append(in, payload...)
		}
		if kind == kernel.ExecStart {
			var start kernel.ExecRequest
			if err := json.Unmarshal(payload, &start); err != nil || strings.Join(start.Argv, " ") != "cat -" || start.TTY {
				t.Errorf("starts %+v (%v)", start, err)
			}
		}
	}
	if len(kinds) < 4 || kinds[0] != kernel.ExecStart || kinds[len(kinds)-1] != kernel.ExecStdinEOF ||
		string(in) != input {
		t.Errorf("frames %v with %d bytes, want start, all of the input, its end", kinds, len(in))
	}
	b.Reset()
	if err := feed(&b, []string{"true"}, nil); err != nil {
		t.Errorf("without input: %v", err)
	}
	broken := errors.New("disk")
	if err := feed(io.Discard, nil, failing{broken}); !errors.Is(err, broken) {
		t.Errorf("an input that fails: %v, want its error", err)
	}
	if err := feed(failing{broken}, nil, nil); !errors.Is(err, broken) {
		t.Errorf("a connection that fails: %v, want its error", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// transport answers all requests alike.
type transport struct {
	status int
	body   io.Reader
	err    error
}

func (tr transport) RoundTrip(*http.Request) (*http.Response, error) {
	if tr.err != nil {
		return nil, tr.err
	}
	return &http.Response{StatusCode: tr.status, Status: http.StatusText(tr.status), Body: io.NopCloser(tr.body)}, nil
}

func TestAnswersOfAgentsBecomeKindsOfErrors(t *testing.T) {
	ask := func(tr transport) (int, error) {
		var got int
		return got, getJSON(t.Context(), tr, "https://agent/x", &got)
	}
	for status, is := range map[int]func(error) bool{404: errdefs.IsNotFound, 403: errdefs.IsPermissionDenied,
		500: errdefs.IsUnavailable, 302: errdefs.IsUnavailable} {
		if _, err := ask(transport{status: status, body: strings.NewReader("why not")}); !is(err) ||
			!strings.Contains(err.Error(), "why not") {
			t.Errorf("%d: %v, want its kind and what was said", status, err)
		}
	}
	if _, err := ask(transport{status: 200, body: strings.NewReader("{")}); err == nil {
		t.Error("a torn answer was read")
	}
	if _, err := ask(transport{err: context.DeadlineExceeded}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v, want why", err)
	}
	if _, err := ask(transport{status: 500, body: strings.NewReader(strings.Repeat("x", 2*maxAnswer))}); err == nil ||
		len(err.Error()) > 400 {
		t.Error("an answer of any size was taken in, or told whole")
	}
	if _, err := (secrets{"https://m", &http.Client{Transport: transport{status: 403,
		body: strings.NewReader("not yours")}}}).Secret(t.Context(), "a/b"); !errdefs.IsPermissionDenied(err) ||
		!strings.Contains(err.Error(), "secret a/b") {
		t.Errorf("a secret that is refused: %v, want which and its kind", err)
	}
}

func TestUnitsListTheirAlarmsAndNotWithoutEnd(t *testing.T) {
	if u := alarmed("x", nil); !u.Healthy || u.Output != "" || u.ID != "marina-x.service" {
		t.Errorf("without alarms: %+v, want it well", u)
	}
	var many []kernel.Alarm
	for range maxShownAlarms + 7 {
		many = append(many, kernel.Alarm{Subject: "app /x", Problem: "unreadable", Do: "marina app remove /x"})
	}
	u := alarmed("x", many)
	lines := strings.Split(u.Output, "\n")
	if u.Healthy || len(lines) != maxShownAlarms+1 || lines[0] != "app /x: unreadable; marina app remove /x" ||
		lines[maxShownAlarms] != "and 7 more" {
		t.Errorf("with many: %d lines, first %q, last %q", len(lines), lines[0], lines[len(lines)-1])
	}
}

func TestVerboseLogsMore(t *testing.T) {
	c := completed(t)
	if c.logger().Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug messages are logged without --verbose")
	}
	c.Verbose = true
	if !c.logger().Enabled(t.Context(), slog.LevelDebug) {
		t.Error("no debug messages are logged with --verbose")
	}
}

func TestOtherSettingsHaveAnotherFingerprint(t *testing.T) {
	c := completed(t)
	before := c.fingerprint()
	if again := c.fingerprint(); again != before || len(before) != 16 {
		t.Errorf("%q, then %q: want the same 16 characters", before, again)
	}
	c.Attribute = []string{"rack=a"}
	if c.fingerprint() == before {
		t.Error("another attribute has the same fingerprint: the agent would not learn of it")
	}
	if first, again := Build(), Build(); first != again || len(first) != 16 {
		t.Errorf("build %q, then %q: want the same 16 characters", first, again)
	}
}
