package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/kernel"
)

// info is what the admin socket tells of the datacenter on this machine.
type info struct {
	URL      string `json:"url"`      // https://10.0.0.5:8443
	HTTP     string `json:"http"`     // http://127.0.0.1:8080, or empty
	Version  string `json:"version"`  //
	Build    string `json:"build"`    // of the binary that runs
	PID      int    `json:"pid"`      //
	State    string `json:"state"`    //
	Healthy  bool   `json:"healthy"`  // its processes are; single units may still have alarms
	Resolver string `json:"resolver"` // the datacenter's name server
	Units    []unit `json:"units"`
}

// unit is one part of the datacenter and how it is.
type unit struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
	Output  string `json:"output"`
}

func (v *invocation) daemonCommand() *cobra.Command {
	return v.settingsFlags(&cobra.Command{Use: "daemon", Short: "Run a datacenter in the foreground (what up starts)", Hidden: true,
		Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
			if err := v.remember(); err != nil {
				return err
			}
			return v.programs.Daemon(c.Context(), v.settings)
		}})
}

func (v *invocation) agentCommand() *cobra.Command {
	return v.settingsFlags(&cobra.Command{Use: "agent", Short: "Run a machine's agent in the foreground (what the daemon starts)", Hidden: true,
		Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error { return v.programs.Agent(c.Context(), v.settings) }})
}

func (v *invocation) upCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "up", Short: "Start the datacenter on this machine", Args: exactly(0),
		Long: "Checks the machine, starts the datacenter in the background and waits until it is well. Harmless when it runs already;\n" +
			"after an update of the binary it restarts the datacenter's own processes, and no task notices.",
		RunE: func(c *cobra.Command, _ []string) error { return v.up(c.Context(), force) }}
	c.Flags().BoolVar(&force, "force", false, "start although a check of the machine says it will not work")
	return v.settingsFlags(c)
}

func (v *invocation) up(ctx context.Context, force bool) error {
	p := v.progress()
	now, err := v.info(ctx)
	running := err == nil
	if running && now.Build == v.programs.Build() && !v.changed {
		p.show("The datacenter runs already.")
		p.done()
		return v.ready(ctx, p, nil)
	}
	switch {
	case !running && v.programs.Running(v.settings):
		return v.ready(ctx, p, nil) // somebody starts it now
	case !running:
		if err := v.preflight(ctx, force); err != nil {
			return err
		}
	default:
		p.show("A new version or other settings: restarting the datacenter's processes, tasks go on.")
		p.done()
		if err := v.end(ctx, now.PID); err != nil {
			return err
		}
	}
	if err := v.remember(); err != nil {
		return err
	}
	ended, err := v.spawn()
	if err != nil {
		return err
	}
	return v.ready(ctx, p, ended)
}

// preflight prints what the machine's checks found; a fatal finding ends it.
func (v *invocation) preflight(ctx context.Context, force bool) error {
	var fatal int
	for _, f := range v.programs.Preflight(ctx, v.settings) {
		mark := map[kernel.Severity]string{kernel.Good: "ok", kernel.Warning: "!!", kernel.Fatal: "NO"}[f.Severity]
		if !v.quiet || f.Severity != kernel.Good {
			fmt.Fprintf(v.err, "  %s  %s\n", mark, clean(f.What))
			if f.Do != "" {
				fmt.Fprintf(v.err, "      %s\n", clean(f.Do))
			}
		}
		if f.Severity == kernel.Fatal {
			fatal++
		}
	}
	if fatal > 0 && !force {
		return &Error{Code: ExitFailed, Message: fmt.Sprintf("this machine is not ready: %d checks failed", fatal),
			Next: "what stands under each NO, then marina up again (or --force)"}
	}
	return nil
}

// maxLog is how large the daemon's log may be when it is started; the one before it is kept.
const maxLog = 8 << 20

// spawn starts the daemon in the background, with the settings that were remembered. ended is closed when it ends while this
// command runs.
func (v *invocation) spawn() (ended <-chan struct{}, err error) {
	logs := filepath.Join(v.settings.State, "log")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, &Error{Code: ExitFailed, Message: fmt.Sprintf("state folder: %v", err), Next: "run as root, or set MARINA_STATE"}
	}
	if fi, err := os.Stat(v.daemonLog()); err == nil && fi.Size() > maxLog {
		if err := os.Rename(v.daemonLog(), v.daemonLog()+".1"); err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
	}
	f, err := os.OpenFile(v.daemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "daemon", "--state", v.settings.State)
	cmd.Stdout, cmd.Stderr, cmd.Dir = f, f, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	done := make(chan struct{})
	go func() { // ends with the daemon or this command
		defer close(done)
		_ = cmd.Wait()
	}()
	return done, nil
}

func (v *invocation) daemonLog() string {
	return filepath.Join(v.settings.State, "log", "daemon.log")
}

// startLimit is how long a datacenter may take to become well.
const startLimit = 60 * time.Second

// ready waits until the datacenter is well and says where it is. Once the daemon has ended, and no other runs, it waits no more.
func (v *invocation) ready(ctx context.Context, p *progress, ended <-chan struct{}) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var last info
	for {
		now, err := v.info(ctx)
		if err == nil {
			last = now
		}
		if err == nil && now.Healthy {
			p.show("The datacenter is up (%.1f s).", time.Since(begin).Seconds())
			p.done()
			return v.where(now)
		}
		var waits []string
		for _, u := range last.Units {
			if !u.Healthy {
				waits = append(waits, u.Name+": "+strings.ReplaceAll(u.Output, "\n", "; "))
			}
		}
		p.show("starting: %s", or(strings.Join(waits, "; "), "daemon"))
		select {
		case <-ctx.Done():
			p.done()
			return &Error{Code: ExitTimeout, Message: "the datacenter did not become well in time\n" + v.tail(20), Next: "less " + v.daemonLog()}
		case <-ended:
			if ended = nil; !v.programs.Running(v.settings) {
				p.done()
				return &Error{Code: ExitFailed, Message: "the daemon ended at once\n" + v.tail(5), Next: "less " + v.daemonLog()}
			}
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func (v *invocation) where(now info) error {
	if v.quiet {
		return nil
	}
	v.fields("gateway", now.URL, "on this machine", now.HTTP, "name server", now.Resolver, "state", now.State, "log", v.daemonLog())
	for _, u := range now.Units {
		if u.Healthy {
			continue
		}
		for line := range strings.Lines(u.Output) {
			fmt.Fprintf(v.err, "  !!  %s: %s\n", u.Name, clean(strings.TrimSpace(line)))
		}
	}
	return nil
}

// tail is the end of the daemon's log.
func (v *invocation) tail(n int) string {
	b, err := os.ReadFile(v.daemonLog())
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-n):], "\n  ")
}

func (v *invocation) info(ctx context.Context) (info, error) {
	var i info
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return i, socketCall(ctx, socketClient(v.settings.State), http.MethodGet, "/info", nil, &i)
}

// end asks a process to end and waits until it has.
func (v *invocation) end(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("daemon %d: %w", pid, err)
	}
	limit := time.After(20 * time.Second)
	for v.programs.Running(v.settings) { // not by its number: a dead process that nobody waited for keeps that
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return &Error{Code: ExitTimeout, Message: fmt.Sprintf("the daemon (process %d) does not end", pid), Next: fmt.Sprintf("kill -9 %d", pid)}
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (v *invocation) downCommand() *cobra.Command {
	var wipe, yes bool
	c := &cobra.Command{Use: "down", Short: "Stop the datacenter on this machine, tasks included", Args: exactly(0),
		Long: "Stops every task and process of the datacenter on this machine. The state stays: `marina up` brings everything back.\n" +
			"With --clean-state the state is removed as well, and nothing of the datacenter is left on the machine.",
		RunE: func(c *cobra.Command, _ []string) error {
			if wipe && !yes {
				if err := v.confirm("Remove everything under " + v.settings.State + "? Services, images and data are lost."); err != nil {
					return err
				}
			}
			progress := v.err
			if v.quiet {
				progress = io.Discard
			}
			if wipe {
				return v.programs.Clean(c.Context(), v.settings, progress)
			}
			return v.programs.Down(c.Context(), v.settings, progress)
		}}
	c.Flags().BoolVar(&wipe, "clean-state", false, "remove the state as well")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return v.settingsFlags(c)
}

// confirm asks a person; without one the answer is no.
func (v *invocation) confirm(question string) error {
	if _, ok := isTerminal(v.in); !ok {
		return usage("--yes", "%s Nobody is there to ask", question)
	}
	fmt.Fprintf(v.err, "%s [y/N] ", question)
	var answer string
	fmt.Fscanln(v.in, &answer)
	if !strings.HasPrefix(strings.ToLower(answer), "y") {
		return &Error{Code: ExitFailed, Message: "nothing was done"}
	}
	return nil
}

// health is how the parts of the datacenter are: GET /system/health/v1.
type health struct {
	Units []struct {
		ID     string `json:"id"`
		Name   string `json:"name"`
		Health int    `json:"health"` // 0 is well
		Output string `json:"output"` // what is wrong; of a scheduler its alarms, one a line
	} `json:"units"`
}

func (v *invocation) statusCommand() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Tell how the datacenter is", Args: exactly(0), RunE: func(c *cobra.Command, _ []string) error {
		cl, err := v.client(c.Context())
		if err != nil {
			return err
		}
		var h health
		b, err := cl.get(c.Context(), "/system/health/v1", &h)
		if err != nil {
			return err
		}
		if v.json {
			return v.raw(b)
		}
		fmt.Fprintln(v.out, cl.URL)
		sick := v.unitTable(&h)
		v.counts(c.Context(), cl)
		if sick > 0 {
			return &Error{Code: ExitFailed, Message: fmt.Sprintf("%d parts of the datacenter are not well", sick), Next: "less " + v.daemonLog()}
		}
		return nil
	}}
}

// maxSays is how much of what a unit says stands in the table; what is longer, or has several lines, stands below it.
const maxSays = 52

// unitTable prints how each unit is and returns how many are not well. The table fits 80 columns; what does not fit into it
// follows, one line for each alarm, with what to do.
func (v *invocation) unitTable(h *health) (sick int) {
	var rows [][]string
	var below []string
	for _, u := range h.Units {
		state, name := "well", or(u.Name, u.ID)
		if u.Health != 0 {
			state = "NOT WELL"
			sick++
		}
		says := strings.TrimSpace(u.Output)
		if strings.Contains(says, "\n") || len([]rune(says)) > maxSays {
			for line := range strings.Lines(says) {
				below = append(below, name+": "+strings.TrimSpace(line))
			}
			says = "see below"
		}
		rows = append(rows, []string{name, state, says})
	}
	v.fitted([]string{"UNIT", "STATE", "SAYS"}, rows, 0)
	if len(below) > 0 {
		fmt.Fprintln(v.out)
	}
	for _, line := range below {
		fmt.Fprintln(v.out, clean(line))
	}
	return sick
}

// counts prints what runs, in one line.
func (v *invocation) counts(ctx context.Context, cl *client) {
	var apps struct {
		Apps []appView `json:"apps"`
	}
	var machines struct {
		Machines []kernel.AgentView `json:"machines"`
	}
	if _, err := cl.get(ctx, marathon+"/apps", &apps); err != nil {
		return
	}
	if _, err := cl.get(ctx, "/machines/v1", &machines); err != nil {
		return
	}
	running, want := 0, 0
	for _, a := range apps.Apps {
		running, want = running+a.TasksRunning, want+a.Instances
	}
	var used, total kernel.Resources
	for _, m := range machines.Machines {
		used, total = used.Add(m.Used), total.Add(m.Total)
	}
	fmt.Fprintf(v.out, "\n%d machines, %d services, %d of %d tasks running; promised %s of %s\n", len(machines.Machines), len(apps.Apps),
		running, want, used, total)
}
