package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errFailed is why the exit status is 1: tests were run and failed.
var errFailed = errors.New("tests failed")

// Config holds the flags.
type Config struct {
	Minors, Shards []string       // default: all
	Only           string         // "all", "missing" (without a result), "failed" (and missing)
	Match          *regexp.Regexp // of tests' names
	Limit          time.Duration  // no batch is begun after it; 0 is none
	Procs          int            // processes of tests at a time; serial tests have one
	Nodes          int            // of the cluster; -1: none for api alone, else 2
	Kubeconfig     string         // of a cluster that is there, instead of a new one
	Bare           bool           // a control plane alone, instead of a cluster
	Report         bool
	BuildOnly      bool
}

func main() {
	err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	switch {
	case errors.Is(err, errFailed):
		os.Exit(1)
	case err != nil:
		os.Exit(2)
	}
}

func say(format string, args ...any) {
	fmt.Printf(time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func run(args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("the repository's directory: %w", err)
	}
	root := strings.TrimSpace(string(out))
	all, err := minors(root)
	if err != nil {
		return err
	}
	if len(c.Minors) == 0 || c.Report {
		c.Minors = all
	}
	var opened []*Minor
	for _, name := range c.Minors {
		if !slices.Contains(all, name) {
			return fmt.Errorf("minor %q is none of %s", name, strings.Join(all, ", "))
		}
		m, err := openMinor(ctx, root, name)
		if err != nil {
			return err
		}
		opened = append(opened, m)
	}
	if c.Report {
		return writeReport(root, opened)
	}
	return c.runMinors(ctx, root, opened)
}

func parse(args []string) (*Config, error) {
	c := &Config{}
	var minors, shards, match string
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.StringVar(&minors, "minors", "", "minors to run, v1.36,v1.37; default all")
	f.StringVar(&shards, "shards", "", "shards to run, of "+strings.Join(classes, ",")+"; default all")
	f.StringVar(&c.Only, "only", "all", "all tests, those without a result (missing), or those and failed ones (failed)")
	f.StringVar(&match, "match", "", "only tests whose names match this regular expression")
	f.DurationVar(&c.Limit, "limit", 0, "begin no batch of tests after this time")
	f.IntVar(&c.Procs, "procs", 2, "processes of tests at a time")
	f.IntVar(&c.Nodes, "nodes", -1, "nodes of the cluster; default none for the shard api alone, else 2")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "use this cluster, which is there")
	f.BoolVar(&c.Bare, "bare", false, "use a control plane on loopback instead of a cluster; for the shard api")
	f.BoolVar(&c.Report, "report", false, "write what is known into docs/conformance.md, and run nothing")
	f.BoolVar(&c.BuildOnly, "build", false, "build the tests and the images, and run nothing")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var err error
	c.Minors, c.Shards = words(minors), words(shards)
	if c.Match, err = regexp.Compile(match); err != nil {
		return nil, err
	}
	if len(c.Shards) == 0 {
		c.Shards = classes
	}
	for _, s := range c.Shards {
		if !slices.Contains(classes, s) {
			return nil, fmt.Errorf("shard %q is none of %s", s, strings.Join(classes, ", "))
		}
	}
	onlyAPI := slices.Equal(c.Shards, []string{"api"})
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("argument %q is not known", f.Arg(0))
	case !slices.Contains([]string{"all", "missing", "failed"}, c.Only):
		return nil, fmt.Errorf("-only %q is none of all, missing, failed", c.Only)
	case c.Procs < 1:
		return nil, fmt.Errorf("-procs %d: at least 1", c.Procs)
	case c.Bare && !onlyAPI:
		return nil, errors.New("-bare is for -shards api: a control plane alone runs no pods")
	case c.Bare, c.Nodes < 0 && onlyAPI && c.Kubeconfig == "":
		c.Nodes = 0
	case c.Nodes < 0:
		c.Nodes = 2
	}
	return c, nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func (c *Config) runMinors(ctx context.Context, root string, all []*Minor) (err error) {
	var d *datacenter
	if !c.Bare && !c.BuildOnly && c.Kubeconfig == "" {
		if d, err = openDatacenter(ctx, root); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.close()) }()
	}
	var deadline time.Time
	if c.Limit > 0 {
		deadline = time.Now().Add(c.Limit)
	}
	failures := 0
	for _, m := range all {
		n, err := c.runMinor(ctx, m, d, deadline)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		failures += n
	}
	if failures > 0 {
		return fmt.Errorf("%d %w", failures, errFailed)
	}
	return nil
}

// runMinor runs the tests that are asked for of a minor, and returns how many of them failed.
func (c *Config) runMinor(ctx context.Context, m *Minor, d *datacenter, deadline time.Time) (failures int, err error) {
	tests := c.choose(m)
	if len(tests) == 0 && !c.BuildOnly {
		say("%s: nothing to run", m.name)
		c.summary(m)
		return 0, nil
	}
	say("%s: building the tests; the first time takes some minutes", m.name)
	s := &Suite{Kubeconfig: c.Kubeconfig, Nodes: c.Nodes, Release: m.release, Where: fmt.Sprintf("%d nodes", c.Nodes),
		Dir: m.cache}
	if s.Program, err = m.buildSuite(ctx); err != nil {
		return 0, err
	}
	var archives []string
	if c.Nodes > 0 || c.BuildOnly {
		if archives, err = c.buildImages(ctx, m, s.Program); err != nil || c.BuildOnly {
			return 0, err
		}
	}
	if s.Kubectl, err = m.component("kubectl"); err != nil {
		return 0, err
	}
	end, err := c.place(ctx, m, d, s, archives)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	failures, err = c.runTests(ctx, m, s, tests, deadline)
	c.summary(m)
	return failures, err
}

// place gives the suite a cluster; end takes it away.
func (c *Config) place(ctx context.Context, m *Minor, d *datacenter, s *Suite,
	archives []string) (end func() error, err error) {
	switch {
	case c.Bare:
		link, err := m.component("control-plane")
		if err != nil {
			return nil, err
		}
		p, err := startPlane(ctx, link, m.cache+"/control-plane.log")
		if err != nil {
			return nil, err
		}
		s.Kubeconfig, s.Where = p.kubeconfig, "bare control plane"
		return p.stop, nil
	case d == nil:
		return func() error { return nil }, nil
	}
	k, err := d.createCluster(ctx, m, c.Nodes)
	if err != nil {
		return nil, err
	}
	s.Kubeconfig = k.kubeconfig
	end = func() error { return k.delete(ctx) }
	for _, a := range archives {
		if err := k.load(ctx, a); err != nil {
			return nil, errors.Join(err, end())
		}
	}
	return end, nil
}

func (c *Config) buildImages(ctx context.Context, m *Minor, program string) ([]string, error) {
	refs, err := m.images(ctx, program)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ref := range refs {
		say("%s: image %s", m.name, ref)
		archive, err := m.buildImage(ctx, ref)
		if err != nil {
			return nil, err
		}
		out = append(out, archive)
	}
	return out, nil
}

// choose picks the tests of a minor that are to be run, in the order of their shards.
func (c *Config) choose(m *Minor) []Test {
	var out []Test
	for _, class := range classes {
		for _, t := range m.tests {
			r, run := m.results.Tests[t.Name]
			wanted := c.Only == "all" || !run || c.Only == "failed" && r.Outcome != passed
			if t.Class == class && slices.Contains(c.Shards, class) && t.LeftOut == "" && wanted && c.Match.MatchString(t.Name) {
				out = append(out, t)
			}
		}
	}
	return out
}

// runTests runs tests in batches, serial ones after all others, and notes the results of each batch.
func (c *Config) runTests(ctx context.Context, m *Minor, s *Suite, tests []Test,
	deadline time.Time) (failures int, err error) {
	isSerial := func(t Test) bool {
		return strings.Contains(t.Name, "[Serial]") || strings.Contains(t.Name, "[Disruptive]")
	}
	serial := slices.DeleteFunc(slices.Clone(tests), func(t Test) bool { return !isSerial(t) })
	parallel := slices.DeleteFunc(slices.Clone(tests), isSerial)
	for i, part := range [][]Test{parallel, serial} {
		procs := c.Procs
		if i == 1 {
			procs = 1
		}
		n, err := runBatches(ctx, m, s, slices.Collect(slices.Chunk(part, batchSize)), procs, deadline,
			[]string{"parallel", "serial"}[i])
		failures += n
		if err != nil {
			return failures, err
		}
	}
	return failures, nil
}

func runBatches(ctx context.Context, m *Minor, s *Suite, batches [][]Test, procs int, deadline time.Time,
	name string) (int, error) {
	var (
		mu       sync.Mutex // guards next, failures, errs and the results
		next     int
		failures int
		errs     []error
		wait     sync.WaitGroup
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(batches) || ctx.Err() != nil || !deadline.IsZero() && time.Now().After(deadline) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(procs, len(batches)) {
		wait.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				begun := time.Now()
				results, err := s.run(ctx, batches[i], fmt.Sprintf("%s-%d", name, i+1))
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
					say("%s: %v", m.name, err)
				} else {
					failures += tell(m, batches[i], results)
					errs = append(errs, m.results.add(results))
					say("%s: %s batch %d of %d: %d tests in %v", m.name, name, i+1, len(batches), len(results),
						time.Since(begun).Round(time.Second))
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return failures, errors.Join(append(errs, ctx.Err())...)
}

// tell says which tests failed, and returns how many.
func tell(m *Minor, batch []Test, results map[string]Result) (failures int) {
	for _, t := range batch {
		if r, run := results[t.Name]; run && r.Outcome != passed {
			failures++
			first, _, _ := strings.Cut(r.Message, "\n")
			say("%s: FAILED %s: %s", m.name, t.Name, first)
		}
	}
	return failures
}

// summary says how the minor stands over all runs, by shard, and what is left out.
func (c *Config) summary(m *Minor) {
	for _, class := range c.Shards {
		say("%s %s: %v", m.release, class, m.results.count(m.tests, func(t Test) bool { return t.Class == class }))
	}
	for _, t := range m.tests {
		if t.LeftOut != "" && slices.Contains(c.Shards, t.Class) {
			say("%s left out: %s: %s", m.release, t.Name, t.LeftOut)
		}
	}
	say("%s all: %v", m.release, m.results.count(m.tests, func(Test) bool { return true }))
}
