package testbed

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// agentLimit bounds the time that an agent takes to end when it is told to.
const agentLimit = 20 * time.Second

// Member is a second machine of a datacenter: an agent with a state directory, a containerd and tasks of its own on a
// Computer, so that its bridge, rules, routes and ports are apart from the first machine's.
//
// An agent gets its certificate at the daemon's admin socket, on its own machine: there is no joining over the network
// yet. So the socket is linked into the member's state directory.
type Member struct {
	*Computer
	Hostname string
	here     *Datacenter // what there is of it on this machine: its directory, its mark, its name
	flags    []string    // of marina agent and marina down
	agent    *exec.Cmd   // nil while none runs
}

// Join puts a machine beside the datacenter and starts an agent on it, which joins. It is taken away at the end of the
// test, which fails if anything of it stays. A runtime that is not empty stands in for the workshop's directory.
func (h *Datacenter) Join(t testing.TB, hostname, runtime string) *Member {
	t.Helper()
	c, err := NewComputer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	m := &Member{Computer: c, Hostname: hostname}
	if err := m.settle(h, runtime); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			text, err := m.Log()
			t.Logf("log of the agent of %s: %v\n%s", m.Hostname, err, text)
		}
	})
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	return m
}

// settle gives the machine its place: a state directory that knows the datacenter.
func (m *Member) settle(h *Datacenter, runtime string) error {
	state, err := os.MkdirTemp("/tmp", "mh")
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(state))
	m.here = &Datacenter{Workshop: h.Workshop, State: state, Reports: h.Reports, ID: hex.EncodeToString(sum[:4]),
		mark:      rand.Text(),
		strangers: presentStrangers()}
	err = inNamespace(m.ns, func() error { m.here.forward = sysctl("net/ipv4/ip_forward"); return nil })
	if runtime == "" {
		runtime = h.Runtime
	}
	master, merr := h.address()
	_, port, _ := strings.Cut(h.Agents, ":")
	m.flags = []string{"--agent-port", master + ":" + port, "--advertise", m.Address, "--hostname", m.Hostname,
		"--host-volume", h.Reports,
		"--runtime", runtime}
	for _, e := range h.Env {
		if !strings.HasPrefix(e, "MARINA_") {
			m.here.Env = append(m.here.Env, e)
		}
	}
	m.here.Env = append(m.here.Env, markName+"="+m.here.mark, "MARINA_STATE="+state)
	known, kerr := os.ReadFile(filepath.Join(h.State, "datacenter.json"))
	return errors.Join(err, merr, kerr, os.WriteFile(filepath.Join(state, "datacenter.json"), known, 0o644),
		os.Mkdir(filepath.Join(state, "run"), 0o700), os.Mkdir(filepath.Join(state, "log"), 0o700),
		os.Symlink(filepath.Join(h.State, "run", "admin.sock"), filepath.Join(state, "run", "admin.sock")))
}

// address is the first machine's own, for which its master has a certificate.
func (h *Datacenter) address() (string, error) {
	o := h.Run("machine", "list", "--json")
	if err := o.err(); err != nil {
		return "", err
	}
	var all struct{ Machines []struct{ Address string } }
	if err := json.Unmarshal([]byte(o.Out), &all); err != nil || len(all.Machines) != 1 {
		return "", fmt.Errorf("machines: %s: %w", o.Out, err)
	}
	return all.Machines[0].Address, nil
}

// Start starts the machine's agent.
func (m *Member) Start() error {
	logs, err := os.OpenFile(m.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logs.Close()
	cmd := exec.Command(m.here.Marina, append([]string{"agent"}, m.flags...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = m.here.Env, logs, logs, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := inNamespace(m.ns, cmd.Start); err != nil { // a process is born in its parent thread's namespaces
		return fmt.Errorf("agent of %s: %w", m.Hostname, err)
	}
	m.agent = cmd
	return nil
}

// Stop ends the machine's agent; its tasks go on.
func (m *Member) Stop() error {
	if m.agent == nil {
		return nil
	}
	if err := m.agent.Process.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("agent of %s: %w", m.Hostname, err)
	}
	limit := time.AfterFunc(agentLimit, func() { m.agent.Process.Kill() })
	defer limit.Stop()
	err := m.agent.Wait()
	if code := m.agent.ProcessState.ExitCode(); code != 0 {
		err = errors.Join(err, fmt.Errorf("agent of %s ended with %d", m.Hostname, code))
	}
	m.agent = nil
	return err
}

// Down is `marina down` on the machine.
func (m *Member) Down() error { return m.down() }

func (m *Member) down(flags ...string) error {
	args := append(append([]string{"down"}, m.flags...), flags...)
	done := m.reap()
	o := m.Run(m.here.Env, m.here.Marina, args...)
	<-done
	return o.err()
}

// reap waits beside `marina down` for the agent that it ends: a zombie would still be a process.
func (m *Member) reap() <-chan struct{} {
	done := make(chan struct{})
	agent := m.agent
	m.agent = nil
	go func() {
		defer close(done)
		if agent != nil {
			agent.Wait()
		}
	}()
	return done
}

// Name returns the machine's id, which a removed one has to give up.
func (m *Member) Name() (string, error) {
	b, err := os.ReadFile(m.nameFile())
	return strings.TrimSpace(string(b)), err
}

// Rename has the machine join as a new one at its next start.
func (m *Member) Rename() error { return os.Remove(m.nameFile()) }

func (m *Member) nameFile() string { return filepath.Join(m.here.State, "agent.id") }
func (m *Member) log() string      { return filepath.Join(m.here.State, "log", "agent.log") }

// Log returns the log of the machine's agent.
func (m *Member) Log() (string, error) {
	b, err := os.ReadFile(m.log())
	return string(b), err
}

// Processes finds the tasks of an app that are processes on this machine.
func (m *Member) Processes(app string) ([]Process, error) { return m.here.Processes(Prefix(app)) }

// close takes the machine away and returns an error that lists what stays, if anything does.
func (m *Member) close() error {
	err := m.down("--clean-state", "--yes")
	return errors.Join(err, inNamespace(m.ns, func() error {
		left := m.here.leftovers()
		if left == nil {
			return nil
		}
		m.here.end()
		return fmt.Errorf("left of machine %s after down --clean-state:\n%w", m.Hostname, left)
	}))
}
