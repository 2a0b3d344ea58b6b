package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/runtime"
)

// poll is the interval between looks at the directories for exits.
const poll = 5 * time.Millisecond

// shim starts the process, says its pid, waits, and leaves the exit code.
const shim = `d=$1; shift
"$@" 3>&- &
echo $! >"$d/pid.tmp" && /bin/mv "$d/pid.tmp" "$d/pid"
echo $! >&3; exec 3>&-
wait $!
echo $? >"$d/exit.tmp" && /bin/mv "$d/exit.tmp" "$d/exit"`

// Runtime runs processes. Any number of them may be opened on one directory.
type Runtime struct {
	dir    string
	images []string
}

var _ runtime.Runtime = (*Runtime)(nil)

// New opens the runtime that keeps its containers in dir. Only the named images can be pulled.
func New(dir string, images ...string) (*Runtime, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Runtime{dir: dir, images: images}, nil
}

func (r *Runtime) path(id, file string) string { return filepath.Join(r.dir, id, file) }

// Pull knows the images New was given.
func (r *Runtime) Pull(_ context.Context, ref string, _ bool) error {
	if !slices.Contains(r.images, ref) {
		return fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
	}
	return nil
}

// Create makes the directory.
func (r *Runtime) Create(_ context.Context, c runtime.Container) error {
	if c.ID == "" || c.ID != filepath.Base(c.ID) || c.ID[0] == '.' {
		return fmt.Errorf("container id %q: %w", c.ID, errdefs.ErrInvalidArgument)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(r.dir, ".new-")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "container.json"), b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(r.dir, c.ID)); err != nil { // fails on a directory that is not empty
		os.RemoveAll(tmp)
		return fmt.Errorf("container %s: %w", c.ID, errdefs.ErrAlreadyExists)
	}
	return nil
}

// store replaces what is known of a container.
func (r *Runtime) store(id string, c runtime.Container) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return durable.ReplaceFile(r.path(id, "container.json"), b, 0o600)
}

// Container keeps the request that a container was made from, limits as they are now.
func (r *Runtime) Container(id string) (runtime.Container, error) { return r.load(id) }

func (r *Runtime) load(id string) (runtime.Container, error) {
	var c runtime.Container
	b, err := os.ReadFile(r.path(id, "container.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(b, &c)
}

// command is a container's command line, environment and directory.
func command(c *runtime.Container) (argv, env []string, dir string) {
	argv = c.Argv
	if c.Shell != "" {
		argv = []string{"/bin/sh", "-c", c.Shell}
	}
	env, dir = slices.Clone(c.Env), c.Dir
	for _, b := range c.Binds {
		if b.Target == runtime.SandboxTarget {
			env = append(env, "MESOS_SANDBOX="+b.Source)
			if dir == runtime.SandboxTarget {
				dir = b.Source
			}
		}
	}
	return argv, append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...), dir
}

// Start starts the shim and waits until it says the pid.
func (r *Runtime) Start(_ context.Context, id string) (runtime.Process, error) {
	c, err := r.load(id)
	if err != nil {
		return runtime.Process{}, err
	}
	argv, env, dir := command(&c)
	if len(argv) == 0 {
		return runtime.Process{}, fmt.Errorf("container %s has no command: %w", id, errdefs.ErrInvalidArgument)
	}
	if _, err := os.Stat(r.path(id, "shim")); err == nil {
		return runtime.Process{}, fmt.Errorf("container %s was started: %w", id, errdefs.ErrFailedPrecondition)
	}
	said, say, err := os.Pipe()
	if err != nil {
		return runtime.Process{}, err
	}
	defer said.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", shim, "shim", filepath.Join(r.dir, id)}, argv...)...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles = env, dir, []*os.File{say}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, o := range []struct {
		name string
		to   *io.Writer
	}{{c.Stdout, &cmd.Stdout}, {c.Stderr, &cmd.Stderr}} {
		if o.name == "" {
			continue
		}
		f, err := os.OpenFile(o.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			say.Close()
			return runtime.Process{}, err
		}
		defer f.Close()
		*o.to = f
	}
	err = cmd.Start()
	say.Close()
	if err != nil {
		return runtime.Process{}, fmt.Errorf("container %s: %w", id, err)
	}
	go cmd.Wait() // reaps the shim; it ends with the container, which may be long after everything here
	if err := os.WriteFile(r.path(id, "shim"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return runtime.Process{}, err
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		return runtime.Process{}, fmt.Errorf("container %s: its shim died: %w", id, errdefs.ErrUnknown)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return runtime.Process{}, err
	}
	p := runtime.Process{PID: pid, Started: time.Now()}
	if s, err := stat(pid); err == nil {
		p.Started = s.Started
	}
	return p, os.WriteFile(r.path(id, "start"), []byte(p.Started.Format(time.RFC3339Nano)), 0o600)
}

// number reads a file of one number.
func (r *Runtime) number(id, file string) (int, bool) {
	b, err := os.ReadFile(r.path(id, file))
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return n, err == nil
}

// find tells what is true of a container.
func (r *Runtime) find(id string) (runtime.Found, error) {
	c, err := r.load(id)
	if err != nil {
		return runtime.Found{}, err
	}
	f := runtime.Found{ID: id, Labels: c.Labels}
	pid, ok := r.number(id, "pid")
	if !ok {
		return f, nil
	}
	f.Process.PID = pid
	if b, err := os.ReadFile(r.path(id, "start")); err == nil {
		f.Process.Started, _ = time.Parse(time.RFC3339Nano, string(b))
	}
	if e, ok := r.exit(id); ok {
		f.Exit = &e
		return f, nil
	}
	s, err := stat(pid)
	f.Running = err == nil && (f.Process.Started.IsZero() || s.Started.Equal(f.Process.Started))
	if f.Running {
		f.Process.Started = s.Started
	} else if e, ok := r.exit(id); ok { // it ended between the two looks
		f.Exit = &e
	} else if shim, ok := r.number(id, "shim"); ok {
		if _, err := stat(shim); err == nil { // it is about to say how it ended
			f.Running = true
		}
	}
	return f, nil
}

func (r *Runtime) exit(id string) (runtime.Exit, bool) {
	code, ok := r.number(id, "exit")
	if !ok {
		return runtime.Exit{}, false
	}
	e := runtime.Exit{ID: id, Code: code}
	if i, err := os.Stat(r.path(id, "exit")); err == nil {
		e.Time = i.ModTime()
	}
	return e, true
}

// Signal signals the process.
func (r *Runtime) Signal(_ context.Context, id string, signal int) error {
	f, err := r.find(id)
	if err != nil || !f.Running {
		return err
	}
	if err := syscall.Kill(f.Process.PID, syscall.Signal(signal)); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("container %s: signal %d: %w", id, signal, err)
	}
	return nil
}

// Remove kills the session and removes the directory.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if shim, ok := r.number(id, "shim"); ok {
		for {
			left, err := session(shim)
			if err != nil {
				return err
			}
			if len(left) == 0 {
				break
			}
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
			}
			select {
			case <-time.After(poll):
			case <-ctx.Done():
				return fmt.Errorf("container %s: processes %v do not end: %w", id, left, ctx.Err())
			}
		}
	}
	return os.RemoveAll(filepath.Join(r.dir, id))
}

// Containers lists the directories.
func (r *Runtime) Containers(context.Context) ([]runtime.Found, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var out []runtime.Found
	for _, e := range entries {
		if e.Name()[0] == '.' {
			continue
		}
		f, err := r.find(e.Name())
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// Exits looks for exit files.
func (r *Runtime) Exits(ctx context.Context) <-chan runtime.Exit {
	out := make(chan runtime.Exit)
	go func() { // ends with ctx
		defer close(out)
		told := map[string]bool{}
		for {
			entries, _ := os.ReadDir(r.dir)
			for _, e := range entries {
				id := e.Name()
				x, ok := r.exit(id)
				if !ok || told[id] {
					continue
				}
				told[id] = true
				select {
				case out <- x:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-time.After(poll):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Layer is of nothing: processes have the machine's files.
func (r *Runtime) Layer(context.Context, string) (int64, error) { return 0, nil }

// Stats reads the process's own memory and time.
func (r *Runtime) Stats(_ context.Context, id string) (runtime.Stats, error) {
	f, err := r.find(id)
	if err != nil {
		return runtime.Stats{}, err
	}
	if !f.Running {
		return runtime.Stats{}, fmt.Errorf("container %s does not run: %w", id, errdefs.ErrFailedPrecondition)
	}
	s, err := stat(f.Process.PID)
	if err != nil {
		return runtime.Stats{}, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return runtime.Stats{Mem: machine.MemoryOf(f.Process.PID).Resident, CPU: s.CPU, PIDs: 1}, nil
}
