package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	reportsDir = "/reports"
	beatEvery  = 200 * time.Millisecond
	lastWords  = 2 * time.Second // for requests that run when it is told to stop
	maxFetch   = 1 << 20         // bytes of another's answer that are passed on
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: probe PORT | sleep")
		os.Exit(2)
	}
	if os.Args[1] == "sleep" {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		return
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// task is the one this process is.
type task struct {
	ID          string `json:"task"`
	Incarnation string `json:"incarnation"`
	Version     string `json:"version"` // the environment's VERSION

	sick  atomic.Bool
	lines atomic.Int64

	mu      sync.Mutex
	reports *os.File // nil without a /reports directory; guarded by mu
	eaten   [][]byte // guarded by mu
}

// record is one line of its reports.
type record struct {
	Event       string    `json:"event"` // start, beat, term, exit
	Task        string    `json:"task"`
	Incarnation string    `json:"incarnation"`
	Version     string    `json:"version,omitempty"`
	PID         int       `json:"pid"`
	Boot        string    `json:"boot,omitempty"`
	Code        int       `json:"code,omitempty"`
	At          time.Time `json:"at"`
}

func run(port string) error {
	t := &task{ID: os.Getenv("MESOS_TASK_ID"), Incarnation: rand.Text(), Version: os.Getenv("VERSION")}
	f, err := os.OpenFile(filepath.Join(reportsDir, t.ID+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	t.reports = f
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	t.tell(record{Event: "start", Boot: strings.TrimSpace(string(boot))})
	if code, err := strconv.Atoi(os.Getenv("EXIT_AT_ONCE")); err == nil {
		t.exit(code)
	}
	fmt.Printf("%s starts on port %s\n", t.ID, port)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for range term {
			t.tell(record{Event: "term"})
			if os.Getenv("IGNORE_TERM") == "" {
				stop()
			}
		}
	}()
	go t.beat(ctx)
	return t.serve(ctx, ":"+port)
}

// tell appends a line. Each is one write, so lines of two processes never mix.
func (t *task) tell(r record) {
	r.Task, r.Incarnation, r.Version, r.PID, r.At = t.ID, t.Incarnation, t.Version, os.Getpid(), time.Now()
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // this cannot be: strings, numbers and a time
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reports == nil {
		return
	}
	if _, err := t.reports.Write(append(b, '\n')); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
	}
}

func (t *task) exit(code int) {
	t.tell(record{Event: "exit", Code: code})
	os.Exit(code)
}

func (t *task) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.tell(record{Event: "beat"})
		}
	}
}

func (t *task) serve(ctx context.Context, addr string) error {
	srv := &http.Server{Addr: addr, Handler: t.handler(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	if err := srv.Shutdown(last); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	t.exit(0)
	return nil
}

func (t *task) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(t) })
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if t.sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /sick", func(http.ResponseWriter, *http.Request) { t.sick.Store(true) })
	mux.HandleFunc("POST /exit", func(_ http.ResponseWriter, r *http.Request) { t.exit(number(r, "code")) })
	mux.HandleFunc("POST /eat", answer(func(r *http.Request) (string, error) { return t.eat(number(r, "mib")) }))
	mux.HandleFunc("POST /fork", answer(func(r *http.Request) (string, error) { return fork(number(r, "n")) }))
	mux.HandleFunc("POST /write", answer(func(r *http.Request) (string, error) { return write(r.URL.Query().Get("at"), number(r, "mib")) }))
	mux.HandleFunc("POST /print", answer(func(r *http.Request) (string, error) { return t.print(number(r, "n")) }))
	mux.HandleFunc("GET /lookup", answer(lookup))
	mux.HandleFunc("GET /get", answer(fetch))
	return mux
}

func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.URL.Query().Get(name)) // nothing is zero
	return n
}

func answer(f func(*http.Request) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, err := f(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		io.WriteString(w, text)
	}
}

// eat takes memory and touches it, a MiB at a time.
func (t *task) eat(mib int) (string, error) {
	debug.SetGCPercent(-1)
	for range mib {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		t.mu.Lock()
		t.eaten = append(t.eaten, b)
		t.mu.Unlock()
	}
	return "eaten\n", nil
}

// fork starts processes until it has n or is refused.
func fork(n int) (string, error) {
	for i := range n {
		cmd := exec.Command("/proc/self/exe", "sleep")
		if err := cmd.Start(); err != nil {
			return "", fmt.Errorf("after %d processes: %w", i, err)
		}
		go cmd.Wait()
	}
	return fmt.Sprintln(n), nil
}

func write(dir string, mib int) (string, error) {
	f, err := os.Create(filepath.Join(cmp.Or(dir, os.Getenv("MESOS_SANDBOX")), "filling"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	rand.Read(block)
	for i := range mib {
		if _, err := f.Write(block); err != nil {
			return "", fmt.Errorf("after %d MiB: %w", i, err)
		}
	}
	return fmt.Sprintln(mib), f.Sync()
}

// print writes numbered lines of 100 bytes, so that a reader can tell whether one is missing.
func (t *task) print(n int) (string, error) {
	for range n {
		head := fmt.Sprintf("line %d ", t.lines.Add(1))
		if _, err := os.Stdout.WriteString(head + strings.Repeat(".", max(0, 99-len(head))) + "\n"); err != nil {
			return "", err
		}
	}
	return fmt.Sprintln(t.lines.Load()), nil
}

func lookup(r *http.Request) (string, error) {
	name := r.URL.Query().Get("name")
	if r.URL.Query().Get("srv") == "true" {
		_, list, err := net.DefaultResolver.LookupSRV(r.Context(), "", "", name)
		var out strings.Builder
		for _, s := range list {
			fmt.Fprintf(&out, "%s:%d\n", s.Target, s.Port)
		}
		return out.String(), err
	}
	// one question: with two, one's failure passes for the other's
	list, err := net.DefaultResolver.LookupNetIP(r.Context(), "ip4", name)
	var out strings.Builder
	for _, a := range list {
		fmt.Fprintln(&out, a)
	}
	return out.String(), err
}

func fetch(r *http.Request) (string, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.URL.Query().Get("url"), nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 3 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch))
	return string(b), err
}
