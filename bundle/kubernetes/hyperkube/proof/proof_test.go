package proof

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	readyWithin = 2 * time.Minute // a cold start on a loaded machine
	stopWithin  = 15 * time.Second
)

// eachMinor runs f against every built program.
func eachMinor(t *testing.T, f func(t *testing.T, program, minor string)) {
	programs, err := filepath.Glob("../../v*/bin/kubernetes-v*")
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) == 0 {
		if os.Getenv("MARINA_REQUIRE_REAL") != "" {
			t.Fatal("no minor is built: make -C bundle/kubernetes")
		}
		t.Skip("no minor is built: make -C bundle/kubernetes")
	}
	for _, p := range programs {
		p, err := filepath.Abs(p)
		if err != nil {
			t.Fatal(err)
		}
		minor := strings.TrimPrefix(filepath.Base(p), "kubernetes-")
		t.Run(minor, func(t *testing.T) {
			if os.Getenv("MARINA_MEASURE") == "" {
				t.Parallel() // they mostly wait
			}
			f(t, p, minor)
		})
	}
}

// plane is a cluster's control plane: its directories, and its process while there is one.
type plane struct {
	program, dir string
	ca           *authority
	port         [3]int // API server, controller-manager, scheduler
	cmd          *exec.Cmd
	log          bytes.Buffer // standard error of all its processes
	exited       chan error
	took         time.Duration // from start to ready
	line         string        // what it said then
}

func newPlane(t *testing.T, program string) *plane {
	// Not t.TempDir, whose long names a socket's address has no room for.
	dir, err := os.MkdirTemp("", "plane")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{program: program, dir: dir}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("standard error:\n%s", tail(p.log.String(), 60))
		}
		os.RemoveAll(dir)
	})
	p.ca = newPKI(t, filepath.Join(dir, "pki"))
	for i := range p.port {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		p.port[i] = l.Addr().(*net.TCPAddr).Port
	}
	return p
}

// start starts the process; its standard output is the result.
func (p *plane) start(t *testing.T, args ...string) *bufio.Reader {
	p.cmd = exec.Command(p.program, append([]string{"control-plane",
		"--data-dir=" + filepath.Join(p.dir, "data"), "--run-dir=" + filepath.Join(p.dir, "run"), "--pki-dir=" + filepath.Join(p.dir, "pki"),
		"--ready-file=" + filepath.Join(p.dir, "ready"), "--bind-address=127.0.0.1", "--advertise-address=192.0.2.1", "--secure-port=" + strconv.Itoa(p.port[0]),
		"--kube-controller-manager-arg=--secure-port=" + strconv.Itoa(p.port[1]), "--kube-scheduler-arg=--secure-port=" + strconv.Itoa(p.port[2])}, args...)...)
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	p.cmd.Stdout = w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p.exited = make(chan error, 1)
	go func() { p.exited <- p.cmd.Wait() }()
	return bufio.NewReader(out)
}

// up starts the process and waits until it says that it is ready.
func (p *plane) up(t *testing.T, args ...string) {
	t.Helper()
	begun := time.Now()
	out := p.start(t, args...)
	said := make(chan string, 1)
	go func() { line, _ := out.ReadString('\n'); said <- line }()
	select {
	case p.line = <-said:
	case <-time.After(readyWithin):
		t.Fatalf("not ready within %v", readyWithin)
	}
	if p.took = time.Since(begun); !strings.HasPrefix(p.line, "ready https://127.0.0.1:") {
		t.Fatalf("it said %q, want a line with ready", p.line)
	}
}

// end waits for the process to end and returns its exit status.
func (p *plane) end(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.exited:
		code := p.cmd.ProcessState.ExitCode()
		p.cmd = nil
		return code
	case <-time.After(within):
		t.Fatalf("still there after %v", within)
		return 0
	}
}

func (p *plane) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		<-p.exited
		p.cmd = nil
	}
}

func (p *plane) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.tryKubectl(args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (p *plane) tryKubectl(args ...string) (string, error) {
	out, err := p.kubectlCommand(append([]string{"--request-timeout=20s"}, args...)...).CombinedOutput()
	return string(out), err
}

func (p *plane) kubectlCommand(args ...string) *exec.Cmd {
	pki := filepath.Join(p.dir, "pki")
	cmd := exec.Command(p.program, append([]string{"kubectl", "--kubeconfig=/dev/null", fmt.Sprintf("--server=https://127.0.0.1:%d", p.port[0]),
		"--certificate-authority=" + pki + "/ca.crt", "--client-certificate=" + pki + "/admin.crt", "--client-key=" + pki + "/admin.key"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+p.dir)
	return cmd
}

// eventually tries f, four times a second, for half a minute.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); time.Sleep(250 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func TestStateOutlivesTheProcess(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, minor string) {
		p := newPlane(t, program)
		p.up(t)
		t.Logf("ready after %v on no data", p.took)
		if !strings.Contains(p.line, " "+minor+".") {
			t.Errorf("it said %q, want a patch of %s", p.line, minor)
		}
		if _, err := os.Stat(filepath.Join(p.dir, "ready")); err != nil {
			t.Error(err)
		}
		if got := p.kubectl(t, "version"); strings.Count(got, " "+minor+".") != 2 {
			t.Errorf("kubectl version = %q, want %s twice, for client and server", got, minor)
		}
		p.kubectl(t, "create", "namespace", "kept")
		p.kubectl(t, "-n", "kept", "create", "configmap", "thing", "--from-literal=key=value")
		eventually(t, func() error { // the controller-manager is at work
			_, err := p.tryKubectl("-n", "kept", "get", "serviceaccount", "default")
			return err
		})
		if used := diskUse(t, filepath.Join(p.dir, "data")); used > 32<<20 {
			t.Errorf("data of an empty cluster takes %d MiB, want 32 at most", used>>20)
		}

		begun := time.Now()
		p.cmd.Process.Signal(syscall.SIGTERM)
		if code := p.end(t, stopWithin); code != 0 {
			t.Errorf("exit status %d after SIGTERM, want 0", code)
		}
		t.Logf("stopped after %v", time.Since(begun))
		if _, err := os.Stat(filepath.Join(p.dir, "ready")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the ready file is still there: %v", err)
		}

		p.up(t)
		t.Logf("ready after %v on its data", p.took)
		got := func() string {
			return p.kubectl(t, "-n", "kept", "get", "configmap", "thing", "-o", "jsonpath={.data.key}")
		}
		if got := got(); got != "value" {
			t.Errorf("after a restart the configmap holds %q, want value", got)
		}
		p.kill()
		p.up(t)
		if got := got(); got != "value" {
			t.Errorf("after a kill the configmap holds %q, want value", got)
		}
	})
}

func TestWatchesDoNotHoldWhatStops(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, _ string) {
		p := newPlane(t, program)
		p.up(t)
		watch := p.kubectlCommand("--request-timeout=0", "get", "namespaces", "--watch", "--no-headers")
		out, err := watch.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := watch.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { watch.Process.Kill(); watch.Wait() }()
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("the watch said nothing: %v", err)
		}
		p.cmd.Process.Signal(syscall.SIGTERM)
		// The controller-manager may still be making its controllers and then has to be left behind; the API server never.
		if code := p.end(t, stopWithin); code != 0 || strings.Contains(p.log.String(), "kube-apiserver: did not stop") {
			t.Errorf("exit status %d, want 0 and the API server stopped by itself:\n%s", code, tail(p.log.String(), 2))
		}
	})
}

func TestComponentThatEndsEndsTheProcess(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, _ string) {
		p := newPlane(t, program)
		taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.port[2]))
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		p.start(t)
		if code := p.end(t, readyWithin); code != 1 {
			t.Errorf("exit status %d, want 1", code)
		}
		if got := tail(p.log.String(), 1); !strings.HasPrefix(got, "control-plane: kube-scheduler: ") {
			t.Errorf("its last words were %q, want them to name kube-scheduler", got)
		}
	})
}

func TestRenewedCertificateIsShownWithoutRestart(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, _ string) {
		p := newPlane(t, program)
		p.up(t)
		serial := func() (string, error) {
			c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.port[0]), &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return "", err
			}
			defer c.Close()
			return c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
		}
		old, err := serial()
		if err != nil {
			t.Fatal(err)
		}
		p.ca.issue(t, "apiserver", "kube-apiserver", "", apiServerHosts...)
		eventually(t, func() error {
			if now, err := serial(); err != nil || now == old {
				return fmt.Errorf("it shows certificate %s (%v), want another than %s", now, err, old)
			}
			return nil
		})
	})
}

func TestBadInputIsRefusedWithItsName(t *testing.T) {
	eachMinor(t, func(t *testing.T, program, _ string) {
		for _, c := range []struct{ arg, want string }{
			{"--kube-apiserver-arg=--no-such-flag=1", "no-such-flag"},
			{"--kube-scheduler-arg=--v=4", "give it to kube-apiserver"},
			{"--etcd-arg=snapshot-count", "--NAME=VALUE"},
			{"--pki-dir=/nowhere", "/nowhere"},
		} {
			p := newPlane(t, program)
			p.start(t, c.arg)
			if code := p.end(t, readyWithin); code == 0 || !strings.Contains(tail(p.log.String(), 1), c.want) {
				t.Errorf("%s: exit status %d, last words %q, want them to hold %q", c.arg, code, tail(p.log.String(), 1), c.want)
			}
		}
	})
}

func diskUse(t *testing.T, dir string) int64 {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
