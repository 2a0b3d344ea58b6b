package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/marinaos/marina/internal/kernel"
)

// taskView is what the verbs read of Marathon's Task.
type taskView struct {
	ID          string    `json:"id"`
	AppID       string    `json:"appId"`
	Host        string    `json:"host"`
	State       string    `json:"state"`
	Ports       []int     `json:"ports"`
	StartedAt   time.Time `json:"startedAt"`
	StagedAt    time.Time `json:"stagedAt"`
	Version     string    `json:"version"`
	IPAddresses []struct {
		IPAddress string `json:"ipAddress"`
	} `json:"ipAddresses"`
	Health []struct {
		Alive               bool   `json:"alive"`
		ConsecutiveFailures int    `json:"consecutiveFailures"`
		LastFailureCause    string `json:"lastFailureCause"`
	} `json:"healthCheckResults"`
}

func (t *taskView) health() string {
	if len(t.Health) == 0 {
		return ""
	}
	for _, h := range t.Health {
		if !h.Alive {
			return "no " + h.LastFailureCause
		}
	}
	return "yes"
}

func (v *invocation) taskTable(tasks []taskView) {
	rows := [][]string{}
	for _, t := range tasks {
		ip, started := "", t.StartedAt
		if len(t.IPAddresses) > 0 {
			ip = t.IPAddresses[0].IPAddress
		}
		if started.IsZero() {
			started = t.StagedAt
		}
		rows = append(rows, []string{t.ID, strings.TrimPrefix(t.State, "TASK_"), t.health(), t.Host, ip,
			strings.Trim(strings.Join(strings.Fields(fmt.Sprint(t.Ports)), ","), "[]"), ago(started)})
	}
	v.table([]string{"TASK", "STATE", "HEALTHY", "MACHINE", "ADDRESS", "PORTS", "AGE"}, rows)
}

func (v *invocation) taskCommand() *cobra.Command {
	return group("task", "Running containers", v.taskList(), v.taskShow(), v.taskLog(), v.taskExec())
}

func (v *invocation) tasks(ctx context.Context, cl *client) ([]taskView, []byte, error) {
	var answer struct {
		Tasks []taskView `json:"tasks"`
	}
	b, err := cl.get(ctx, marathon+"/tasks", &answer)
	return answer.Tasks, b, err
}

func (v *invocation) taskList() *cobra.Command {
	var ids bool
	list := &cobra.Command{Use: "list [APP]", Short: "List tasks", Args: cobra.MaximumNArgs(1), ValidArgsFunction: v.completeApps,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			var answer struct {
				Tasks []taskView `json:"tasks"`
			}
			path := marathon + "/tasks"
			if len(args) == 1 {
				path = appPath(args[0]) + "/tasks"
			}
			b, err := cl.get(c.Context(), path, &answer)
			if err != nil {
				return err
			}
			if v.json {
				return v.raw(b)
			}
			switch {
			case ids:
				for _, t := range answer.Tasks {
					fmt.Fprintln(v.out, t.ID)
				}
			case len(answer.Tasks) == 0:
				fmt.Fprintln(v.out, "No tasks.")
			default:
				v.taskTable(answer.Tasks)
			}
			return nil
		}}
	list.Flags().BoolVar(&ids, "ids", false, "print only the ids, for scripts")
	return list
}

// find resolves a task by its id, by a part of it that only one task has, or by its app: then it is one of the app's.
func (v *invocation) find(ctx context.Context, cl *client, part string) (taskView, error) {
	all, _, err := v.tasks(ctx, cl)
	if err != nil {
		return taskView{}, err
	}
	var hits []taskView
	for _, t := range all {
		if t.ID == part {
			return t, nil
		}
		if t.AppID == "/"+strings.Trim(part, "/") && t.State == "TASK_RUNNING" {
			return t, nil
		}
		if strings.Contains(t.ID, part) {
			hits = append(hits, t)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return taskView{}, &Error{Code: ExitNotFound, Message: fmt.Sprintf("no running task matches %q", part), Next: "marina task list"}
	}
	return taskView{}, usage("marina task list", "%d tasks match %q: give more of the id", len(hits), part)
}

func (v *invocation) taskShow() *cobra.Command {
	var pid bool
	show := &cobra.Command{Use: "show TASK", Short: "Show one task", Args: exactly(1), ValidArgsFunction: v.completeTasks,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			t, err := v.find(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			b, err := cl.call(c.Context(), http.MethodGet, "/tasks/v1/"+url.PathEscape(t.ID), nil)
			if err != nil {
				return err
			}
			if v.json {
				return v.raw(b)
			}
			var known struct {
				Status kernel.Status `json:"status"`
			}
			if err := unmarshal(b, &known); err != nil {
				return err
			}
			if pid {
				fmt.Fprintln(v.out, known.Status.PID)
				return nil
			}
			v.fields("task", t.ID, "app", t.AppID, "version", t.Version, "state", t.State, "healthy", t.health(), "machine", t.Host,
				"ports", fmt.Sprint(t.Ports), "process", strconv.Itoa(known.Status.PID), "says", known.Status.Message)
			for _, ip := range t.IPAddresses {
				v.fields("address", ip.IPAddress)
			}
			if !t.StartedAt.IsZero() {
				v.fields("started", t.StartedAt.Local().Format(time.DateTime)+" ("+ago(t.StartedAt)+" ago)")
			}
			return nil
		}}
	show.Flags().BoolVar(&pid, "pid", false, "print only its process on the machine, for scripts")
	return show
}

func (v *invocation) taskLog() *cobra.Command {
	var follow, stderr bool
	var lines int
	log := &cobra.Command{Use: "log TASK", Short: "Print what a task wrote", Args: exactly(1), ValidArgsFunction: v.completeTasks,
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			id := args[0]
			if t, err := v.find(c.Context(), cl, id); err == nil {
				id = t.ID // an ended task's log is asked for by its whole id
			} else if !strings.Contains(id, ".instance-") {
				return err
			}
			stream := "stdout"
			if stderr {
				stream = "stderr"
			}
			path := "/tasks/v1/" + url.PathEscape(id) + "/logs/" + stream
			var next int64
			if lines > 0 {
				if next, err = v.lastLines(c.Context(), cl, path, lines); err != nil || !follow {
					return err
				}
			}
			resp, err := cl.read(c.Context(), fmt.Sprintf("%s?offset=%d&follow=%t", path, next, follow))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(v.out, resp.Body)
			if c.Context().Err() != nil {
				return nil // Ctrl-C ends following
			}
			return err
		}}
	log.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it writes more")
	log.Flags().BoolVar(&stderr, "stderr", false, "standard error instead of standard output")
	log.Flags().IntVarP(&lines, "lines", "n", 0, "only the last lines")
	return log
}

// lastBytes is how far from its end a log is searched for its last lines.
const lastBytes = 1 << 20

// lastLines prints the last lines of a log and returns the offset after them.
func (v *invocation) lastLines(ctx context.Context, cl *client, path string, n int) (int64, error) {
	resp, err := cl.read(ctx, fmt.Sprintf("%s?offset=-%d", path, lastBytes))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 2*lastBytes))
	if err != nil {
		return 0, err
	}
	at, err := strconv.ParseInt(resp.Header.Get("Marina-Offset"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the answer is not what this version expects: %w", err)
	}
	from := len(b)
	for ; n > 0 && from > 0; n-- {
		from = bytes.LastIndexByte(b[:from-1], '\n') + 1
	}
	_, err = v.out.Write(b[from:])
	return at + int64(len(b)), err
}

func (v *invocation) taskExec() *cobra.Command {
	var tty bool
	exec := &cobra.Command{Use: "exec TASK -- COMMAND [ARG...]", Short: "Run a command in a task; its exit code is this command's",
		Args: cobra.MinimumNArgs(2), ValidArgsFunction: v.completeTasks, RunE: func(c *cobra.Command, args []string) error {
			cl, err := v.client(c.Context())
			if err != nil {
				return err
			}
			t, err := v.find(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			return v.exec(c.Context(), cl, t.ID, args[1:], tty)
		}}
	exec.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	return exec
}

// exec runs a command in a task over one full-duplex request.
func (v *invocation) exec(ctx context.Context, cl *client, task string, argv []string, tty bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	start := kernel.ExecRequest{Argv: argv, TTY: tty}
	in, isTTY := isTerminal(v.in)
	if tty && isTTY {
		start.Size = size(in)
		start.Env = []string{"TERM=" + or(os.Getenv("TERM"), "xterm")}
		old, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		defer term.Restore(int(in.Fd()), old)
	}
	go v.feed(ctx, pw, start, in, tty && isTTY) // ends when the request does: the pipe breaks
	resp, err := cl.request(ctx, http.MethodPost, "/tasks/v1/"+url.PathEscape(task)+"/exec", pr, "application/octet-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return answerError(resp.StatusCode, b)
	}
	for {
		kind, payload, err := kernel.ReadExecFrame(resp.Body)
		if err != nil {
			return &Error{Code: ExitUnreachable, Message: "the connection to the task was lost", Next: "marina task show " + task}
		}
		switch kind {
		case kernel.ExecStdout:
			v.out.Write(payload)
		case kernel.ExecStderr:
			v.err.Write(payload)
		case kernel.ExecExit:
			var r kernel.ExecResult
			if err := json.Unmarshal(payload, &r); err != nil {
				return err
			}
			if r.Error != "" {
				return &Error{Code: ExitFailed, Message: r.Error}
			}
			if r.Code != 0 {
				return &exitCode{r.Code}
			}
			return nil
		}
	}
}

// feed sends the request's body: what to run, then the terminal's input and sizes.
func (v *invocation) feed(ctx context.Context, w *io.PipeWriter, start kernel.ExecRequest, in *os.File, sizes bool) {
	frames := make(chan func() error, 16)
	send := func(kind kernel.ExecKind, value any) func() error {
		return func() error {
			b, err := json.Marshal(value)
			if err != nil {
				return err
			}
			return kernel.WriteExecFrame(w, kind, b)
		}
	}
	frames <- send(kernel.ExecStart, start)
	go v.pump(ctx, w, frames)
	if sizes {
		winch := make(chan os.Signal, 1)
		signal.Notify(winch, syscall.SIGWINCH)
		defer signal.Stop(winch)
		go func() {
			for {
				select {
				case <-winch:
					select {
					case frames <- send(kernel.ExecResize, size(in)):
					case <-ctx.Done():
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			w.CloseWithError(ctx.Err())
			return
		case write := <-frames:
			if err := write(); err != nil {
				w.CloseWithError(err)
				return
			}
		}
	}
}

// pump turns standard input into frames until it ends.
func (v *invocation) pump(ctx context.Context, w io.Writer, frames chan<- func() error) {
	put := func(f func() error) bool {
		select {
		case frames <- f:
			return true
		case <-ctx.Done():
			return false
		}
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := v.in.Read(buf)
		if n > 0 {
			payload := append([]byte(nil), buf[:n]...)
			if !put(func() error { return kernel.WriteExecFrame(w, kernel.ExecStdin, payload) }) {
				return
			}
		}
		if err != nil {
			put(func() error { return kernel.WriteExecFrame(w, kernel.ExecStdinEOF, nil) })
			return
		}
	}
}

func size(f *os.File) kernel.ExecSize {
	w, h, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return kernel.ExecSize{Columns: 80, Rows: 24}
	}
	return kernel.ExecSize{Columns: uint16(w), Rows: uint16(h)}
}

func (v *invocation) completeTasks(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
	defer cancel()
	cl, err := v.client(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _, err := v.tasks(ctx, cl)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, t := range all {
		out = append(out, t.ID)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
