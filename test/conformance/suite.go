package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Limits of a batch of tests.
const (
	batchSize  = 15
	batchLimit = 90 * time.Minute // of one process; the longest single tests take ten
	stopWithin = 2 * time.Minute  // after which a process that was interrupted is killed
	maxMessage = 600              // bytes of a failure that results keep
)

// Suite is the compiled tests of a minor and the cluster they are run against.
type Suite struct {
	Program    string // e2e.test
	Kubectl    string // of the same release
	Kubeconfig string
	Nodes      int    // of the cluster
	Release    string // "v1.37.2"
	Where      string
	Dir        string // for logs and reports
}

// run runs one batch in one process and returns the results of the tests that came to an end.
func (s *Suite) run(ctx context.Context, batch []Test, name string) (map[string]Result, error) {
	reports := filepath.Join(s.Dir, "reports", name)
	if err := errors.Join(os.RemoveAll(reports), os.MkdirAll(reports, 0o755)); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.Dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(ctx, batchLimit+stopWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Program, s.args(batch, reports)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, reports
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, stopWithin
	runErr := cmd.Run()

	results, err := readReports(reports)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; %v, see %s", name, err, runErr, log.Name())
	}
	out := map[string]Result{}
	for _, t := range batch {
		if r, ok := results[t.Name]; ok {
			r.Time, r.Release, r.Where = time.Now().UTC().Truncate(time.Second), s.Release, s.Where
			out[t.Name] = r
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no test was run: %v, see %s", name, runErr, log.Name())
	}
	return out, nil
}

func (s *Suite) args(batch []Test, reports string) []string {
	args := []string{"--provider=skeleton", "--kubeconfig=" + s.Kubeconfig, "--kubectl-path=" + s.Kubectl,
		"--report-dir=" + reports,
		"--dump-logs-on-failure=false", "--disable-log-dump", "--e2e-output-dir=" + reports,
		"--ginkgo.no-color", "--ginkgo.silence-skips", "--ginkgo.timeout=" + batchLimit.String()}
	if s.Nodes == 0 {
		// Neither counts nodes nor waits for them and their pods.
		args = append(args, "--num-nodes=0", "--allowed-not-ready-nodes=-1", "--minStartupPods=-1")
	} else {
		args = append(args, "--node-schedulable-timeout=3m", "--system-pods-startup-timeout=5m",
			"--system-daemonsets-startup-timeout=3m")
	}
	for _, t := range batch {
		// A test's full text begins with the suite's name.
		args = append(args, "--ginkgo.focus= "+regexp.QuoteMeta(t.Name)+"$")
	}
	return args
}

// readReports reads the JUnit files of a process: the outcome of every test that was run, by its name.
func readReports(dir string) (map[string]Result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "junit*.xml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("report: %w", fs.ErrNotExist)
	}
	out := map[string]Result{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := parseReport(b, out); err != nil {
			return nil, fmt.Errorf("report %s: %w", file, err)
		}
	}
	return out, nil
}

func parseReport(b []byte, out map[string]Result) error {
	type problem struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	var report struct {
		Cases []struct {
			Name    string   `xml:"name,attr"`
			Status  string   `xml:"status,attr"`
			Seconds float64  `xml:"time,attr"`
			Failure *problem `xml:"failure"`
			Error   *problem `xml:"error"`
			Skipped *problem `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(b, &report); err != nil {
		return err
	}
	for _, c := range report.Cases {
		name, isTest := strings.CutPrefix(c.Name, "[It] ")
		r := Result{Outcome: failed, Seconds: c.Seconds}
		switch p := firstOf(c.Failure, c.Error, c.Skipped); {
		case !isTest, c.Status == "interrupted": // nobody knows what it would have given
			continue
		case p == nil && c.Status == "passed":
			r.Outcome = passed
		case p == nil:
			r.Message = c.Status
		case p == c.Skipped && p.Message == "skipped":
			continue // not in focus
		default: // A conformance test that skips itself has not shown anything: it counts as failed.
			r.Message = shorten(p.Message + "\n" + p.Text)
		}
		out[name] = r
	}
	return nil
}

func firstOf[T any](all ...*T) *T {
	for _, p := range all {
		if p != nil {
			return p
		}
	}
	return nil
}

func shorten(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "..."
	}
	return s
}
