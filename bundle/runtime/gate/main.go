// Gate is a CNI plugin, the last of a node's chain: it lets a pod start once the rules for the pod's address stand.
//
// A pod's address reaches the Kubernetes API only after the pod runs. Until then nobody who reads policies there could
// isolate it. So this plugin tells the node's engine (kubernetes node-network), over a unix socket, which address the
// pod was given, and waits for the answer that its rules stand. No answer within the limit is an error: the sandbox
// fails, and the kubelet tries again. The engine being away therefore means no new pods, never pods without rules.
//
// Configuration: "socket", where the engine listens, and the usual "cniVersion", "name", "prevResult". It adds nothing
// to the result of the plugins before it and prints that as it came. One request is one line of JSON each way; see
// package policy of the engine, which has the same words.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const (
	defaultSocket = "/run/marina/gate.sock"
	// limit bounds a pod's wait for its rules.
	limit = 10 * time.Second
	// releaseLimit bounds the report of a pod's end; the engine learns it from the API as well.
	releaseLimit = 2 * time.Second
	redial       = 50 * time.Millisecond
	maxInput     = 1 << 20
	maxAnswer    = 64 << 10
)

// CNI's numbers for errors.
const (
	codeVersion     = 1
	codeEnvironment = 4
	codeInput       = 6
	codeConfig      = 7
	codeTryLater    = 11
	codeUnavailable = 50
)

type config struct {
	CNIVersion string          `json:"cniVersion"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
}

// request and answer are what goes over the socket.
type request struct {
	Op        string   `json:"op"` // "add" or "del"
	Container string   `json:"container"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

type answer struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// failure is CNI's shape of an error.
type failure struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Msg        string `json:"msg"`
}

func (f *failure) Error() string { return f.Msg }

func fail(code int, format string, args ...any) error {
	return &failure{Code: code, Msg: fmt.Sprintf("gate: "+format, args...)}
}

var supported = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

func main() {
	err := run(os.Getenv, os.Stdin, os.Stdout)
	if err == nil {
		return
	}
	f := new(failure)
	if !errors.As(err, &f) {
		f = &failure{Code: 999, Msg: err.Error()}
	}
	if f.CNIVersion == "" {
		f.CNIVersion = "1.0.0"
	}
	json.NewEncoder(os.Stdout).Encode(f)
	os.Exit(1)
}

func run(env func(string) string, in io.Reader, out io.Writer) error {
	raw, err := io.ReadAll(io.LimitReader(in, maxInput))
	if err != nil {
		return fail(codeInput, "reading the configuration: %v", err)
	}
	command := env("CNI_COMMAND")
	var c config
	if len(raw) > 0 || command != "VERSION" {
		if err := json.Unmarshal(raw, &c); err != nil {
			return fail(codeInput, "configuration: %v", err)
		}
	}
	if c.Socket == "" {
		c.Socket = defaultSocket
	}
	switch command {
	case "ADD":
		return add(c, env, out)
	case "DEL":
		// Of a pod's end the engine hears here first, but never only here: it is no reason to keep a sandbox.
		r := pod(env)
		r.Op = "del"
		_ = ask(c.Socket, r, releaseLimit)
		return nil
	case "CHECK", "GC":
		return nil
	case "STATUS":
		conn, err := net.DialTimeout("unix", c.Socket, releaseLimit)
		if err != nil {
			return fail(codeUnavailable, "the engine is away: %v", err)
		}
		return conn.Close()
	case "VERSION":
		return json.NewEncoder(out).Encode(map[string]any{"cniVersion": "1.1.0", "supportedVersions": supported})
	}
	return fail(codeEnvironment, "CNI_COMMAND %q: expected ADD, DEL, CHECK, GC, STATUS or VERSION", command)
}

func add(c config, env func(string) string, out io.Writer) error {
	if len(c.PrevResult) == 0 || string(c.PrevResult) == "null" {
		return fail(codeConfig, "no prevResult: this plugin stands behind one that gives an address")
	}
	var prev struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(c.PrevResult, &prev); err != nil {
		return fail(codeInput, "prevResult: %v", err)
	}
	r := pod(env)
	r.Op = "add"
	for _, ip := range prev.IPs {
		address, _, _ := strings.Cut(ip.Address, "/")
		r.Addresses = append(r.Addresses, address)
	}
	if len(r.Addresses) == 0 {
		return fail(codeConfig, "prevResult has no address")
	}
	if r.Namespace == "" || r.Name == "" {
		return fail(codeEnvironment, "CNI_ARGS name no pod: K8S_POD_NAMESPACE and K8S_POD_NAME are needed")
	}
	if err := ask(c.Socket, r, limit); err != nil {
		return fail(codeTryLater, "pod %s/%s, address %s: %v", r.Namespace, r.Name, strings.Join(r.Addresses, ", "), err)
	}
	_, err := fmt.Fprintln(out, string(c.PrevResult))
	return err
}

// pod says whom the call is about.
func pod(env func(string) string) request {
	r := request{Container: env("CNI_CONTAINERID")}
	for pair := range strings.SplitSeq(env("CNI_ARGS"), ";") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "K8S_POD_NAMESPACE":
			r.Namespace = value
		case "K8S_POD_NAME":
			r.Name = value
		case "K8S_POD_UID":
			r.UID = value
		}
	}
	return r
}

// ask sends r and waits for the answer. An engine that is not there yet is waited for, within the same limit; one that
// went away while it was asked is asked again when it is back.
func ask(socket string, r request, limit time.Duration) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	var why error // what kept the engine from answering; that the time is over says less than what was before
	for {
		a, err := askOnce(socket, append(line, '\n'), deadline)
		switch {
		case err == nil && a.OK:
			return nil
		case err == nil:
			return errors.New(a.Error)
		case why == nil || !errors.Is(err, os.ErrDeadlineExceeded):
			why = err
		}
		if time.Now().Add(redial).After(deadline) {
			return fmt.Errorf("no answer within %v: %w", limit, why)
		}
		time.Sleep(redial)
	}
}

func askOnce(socket string, line []byte, deadline time.Time) (answer, error) {
	conn, err := net.DialTimeout("unix", socket, time.Until(deadline))
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{}, err
	}
	if _, err := conn.Write(line); err != nil {
		return answer{}, err
	}
	back, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	if err != nil {
		return answer{}, err
	}
	var a answer
	return a, json.Unmarshal(back, &a)
}
