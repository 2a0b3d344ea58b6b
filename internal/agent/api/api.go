package api

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/agent/naming"
	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/agent/sandbox"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/runtime"
)

const (
	logChunk     = 64 << 10 // bytes of a log read at a time
	followPoll   = 100 * time.Millisecond
	maxListing   = 10_000 // entries of a directory that are told
	statsWorkers = 16
)

// Config names what an API answers from.
type Config struct {
	Agent     kernel.AgentID
	State     string // a path on the disk that the agent's state is on
	Runtime   runtime.Runtime
	Sandboxes *sandbox.Dir
	LogKeep   int // rotated files of an output that are kept
	Log       *slog.Logger
	Metrics   *metrics.Registry // nil: there are none

	Task func(kernel.TaskID) (t Task, ok bool) // ok is false for one that no instance here has
	Up   func() map[kernel.TaskID]Task         // those that are up
}

// API answers a master's requests beside the session.
type API struct{ cfg Config }

// New makes an API.
func New(cfg Config) *API { return &API{cfg} }

// Handler serves them.
func (p *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /agent/v1/tasks/{id}/logs/{stream}", p.answer(p.serveLogs))
	mux.HandleFunc("GET /agent/v1/tasks/{id}/files/{path...}", p.answer(p.serveFiles))
	mux.HandleFunc("POST /agent/v1/tasks/{id}/exec", p.answer(p.serveExec))
	mux.HandleFunc("GET /agent/v1/tasks/{id}/usage", p.answer(p.serveUsage))
	mux.HandleFunc("GET /agent/v1/stats", p.answer(p.serveStats))
	if p.cfg.Metrics != nil {
		mux.Handle("GET /agent/v1/metrics", p.cfg.Metrics.Handler())
	}
	return mux
}

// unexplained is the answer to an error whose text is for the machine's operator only: masters hand answers on to
// users.
const unexplained = "the machine's agent cannot do this now; its log says why"

// sandboxOf is the name of a task's sandbox; the task may have ended.
func sandboxOf(r *http.Request) (kernel.TaskID, error) {
	id := kernel.TaskID(r.PathValue("id"))
	if !naming.IsTask(id) {
		return "", fmt.Errorf("task id %.40q: %w", id, errdefs.ErrInvalidArgument)
	}
	return id, nil
}

func intParam(r *http.Request, name string, otherwise int64) (int64, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s %.40q is not a number: %w", name, v, errdefs.ErrInvalidArgument)
	}
	return n, nil
}

// serveLogs answers with a task's output from offset on (negative: so many bytes before its end), at most limit bytes,
// and with follow=true goes on until the task has ended. Marina-Offset tells where the answer begins: bytes that are
// not kept any more are left out.
func (p *API) serveLogs(w http.ResponseWriter, r *http.Request) error {
	task, err := sandboxOf(r)
	if err != nil {
		return err
	}
	stream := r.PathValue("stream")
	if stream != "stdout" && stream != "stderr" {
		return fmt.Errorf("stream %.40q, expected stdout or stderr: %w", stream, errdefs.ErrInvalidArgument)
	}
	offset, err := intParam(r, "offset", 0)
	if err != nil {
		return err
	}
	left, err := intParam(r, "limit", 1<<62)
	if err != nil || left < 0 {
		return errors.Join(err, fmt.Errorf("limit must be a number of bytes: %w", errdefs.ErrInvalidArgument))
	}
	follow := r.URL.Query().Get("follow") == "true"

	buf := make([]byte, logChunk)
	_, at, end, err := p.cfg.Sandboxes.Read(task, stream, max(0, offset), buf[:0], p.cfg.LogKeep)
	if err != nil {
		return fmt.Errorf("%s of task %s: %w", stream, task, err)
	}
	if offset < 0 {
		at = max(0, end+offset)
	}
	at = min(at, end)
	if _, first, _, err := p.cfg.Sandboxes.Read(task, stream, at, buf[:0], p.cfg.LogKeep); err == nil {
		at = first
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Marina-Offset", strconv.FormatInt(at, 10))
	control := http.NewResponseController(w)
	for left > 0 {
		now, live := p.cfg.Task(task) // before the read: what was written before its end is read
		live = live && !now.Status.State.Terminal()
		n, from, _, err := p.cfg.Sandboxes.Read(task, stream, at, buf[:min(int64(len(buf)), left)], p.cfg.LogKeep)
		if err != nil {
			return nil // collected meanwhile; what was there was sent
		}
		at = from
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil
			}
			at, left = at+int64(n), left-int64(n)
			continue
		}
		if err := control.Flush(); err != nil || !follow || !live {
			return nil
		}
		if !retry.Pause(r.Context(), followPoll) {
			return nil
		}
	}
	return nil
}

// entry is one line of a directory's listing.
type entry struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Mode     string    `json:"mode"`
	Modified time.Time `json:"modified"`
	Dir      bool      `json:"folder,omitempty"`
}

// serveFiles answers with a file of a task's sandbox, or a directory's entries as JSON. What a link leads to outside of
// the sandbox is forbidden, and so is what is neither a file nor a directory.
func (p *API) serveFiles(w http.ResponseWriter, r *http.Request) error {
	task, err := sandboxOf(r)
	if err != nil {
		return err
	}
	root, err := p.cfg.Sandboxes.Open(task)
	if err != nil {
		return fmt.Errorf("sandbox of task %s: %w", task, err)
	}
	defer root.Close()
	name := path.Clean("/" + r.PathValue("path"))[1:]
	f, err := sandbox.OpenInside(root, cmp.Or(name, "."), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case i.IsDir():
		return serveDir(w, f)
	case !i.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a directory: %w", name, errdefs.ErrPermissionDenied)
	}
	w.Header().Set("Content-Type", "application/octet-stream") // never something a browser would run
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", i.ModTime(), f)
	return nil
}

func serveDir(w http.ResponseWriter, f *os.File) error {
	found, err := f.ReadDir(maxListing)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	out := make([]entry, 0, len(found))
	for _, d := range found {
		if i, err := d.Info(); err == nil {
			out = append(out, entry{Name: d.Name(), Size: i.Size(), Mode: i.Mode().String(), Modified: i.ModTime().UTC(),
				Dir: d.IsDir()})
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return cmp.Compare(a.Name, b.Name) })
	return serveJSON(w, out)
}

// TaskStats counts one task's use of the machine.
type TaskStats struct {
	Task     kernel.TaskID `json:"task"`
	Mem      int64         `json:"mem"`
	CPU      time.Duration `json:"cpu"`
	PIDs     int64         `json:"pids"`
	Throttle time.Duration `json:"throttle"`
	Disk     int64         `json:"disk"` // its sandbox and its own layer of the filesystem
}

// AgentStats counts the use of all tasks of an agent, and what is left.
type AgentStats struct {
	Agent    kernel.AgentID `json:"agent"`
	FreeDisk int64          `json:"freeDisk"`
	Tasks    []TaskStats    `json:"tasks"`
}

func (p *API) serveStats(w http.ResponseWriter, r *http.Request) error {
	free, _, err := machine.FreeDisk(p.cfg.State)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := AgentStats{Agent: p.cfg.Agent, FreeDisk: free, Tasks: []TaskStats{}}
	eg, ctx := errgroup.WithContext(r.Context())
	eg.SetLimit(statsWorkers)
	for id, t := range p.cfg.Up() {
		eg.Go(func() error {
			s, err := p.cfg.Runtime.Stats(ctx, t.Container)
			if err != nil {
				return nil // it ended meanwhile
			}
			use, _ := p.cfg.Sandboxes.Usage(id)
			layer, _ := p.cfg.Runtime.Layer(ctx, t.Container)
			mu.Lock()
			defer mu.Unlock()
			out.Tasks = append(out.Tasks, TaskStats{id, s.Mem, s.CPU, s.PIDs, s.Throttle, use.Bytes + layer})
			return nil
		})
	}
	_ = eg.Wait()
	slices.SortFunc(out.Tasks, func(a, b TaskStats) int { return cmp.Compare(string(a.Task), string(b.Task)) })
	return serveJSON(w, out)
}
