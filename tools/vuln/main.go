package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/vuln/scan"
)

// oldAfter is the age of the database from which on it is told.
const oldAfter = 45 * 24 * time.Hour

//go:embed accepted.txt
var acceptedText string

// message is the part of govulncheck's JSON that is read here: golang.org/x/vuln/internal/govulncheck.Message.
type message struct {
	Config *struct {
		GoVersion string `json:"go_version"`
	} `json:"config"`
	OSV     *osv     `json:"osv"`
	Finding *finding `json:"finding"`
}

type osv struct {
	ID      string `json:"id"`
	Summary string `json:"summary"`
}

type finding struct {
	OSV   string  `json:"osv"`
	Fixed string  `json:"fixed_version"`
	Trace []frame `json:"trace"` // the vulnerable symbol first
}

type frame struct {
	Module, Version, Package, Function, Receiver string
	Position                                     *struct {
		Filename string
		Line     int
	}
}

// reached is a vulnerability that the code calls into.
type reached struct {
	osv
	module, version, fixed string
	way                    string // how the code gets there
}

func main() {
	root := flag.String("root", "..", "the top of the repository")
	flag.Parse()
	ok, err := run(context.Background(), *root, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vuln:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, root string, out io.Writer) (bool, error) {
	db, made, err := database(ctx, filepath.Join(root, "tools", "vulndb"))
	if err != nil {
		return false, err
	}
	var stdout, stderr bytes.Buffer
	cmd := scan.Command(ctx, "-C", root, "-format", "json", "-db", "file://"+db, "./...")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if err := cmd.Wait(); err != nil {
		return false, fmt.Errorf("govulncheck: %w: %s", err, stderr.String())
	}
	found, goVersion, err := read(&stdout)
	if err != nil {
		return false, fmt.Errorf("govulncheck's answer: %w", err)
	}
	accepted, err := parseAccepted(acceptedText)
	if err != nil {
		return false, err
	}
	ok := judge(out, found, accepted, goVersion)
	tell(out, found, made, ok)
	return ok, nil
}

// database returns the directory of the pinned database and when it was made, which its pseudo-version tells.
func database(ctx context.Context, module string) (string, time.Time, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "golang.org/x/vulndb")
	cmd.Dir = module
	b, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			b = append(b, exit.Stderr...)
		}
		return "", time.Time{}, fmt.Errorf("the vulnerability database cannot be downloaded: %w: %s", err, b)
	}
	var m struct{ Dir, Version string }
	if err := json.Unmarshal(b, &m); err != nil {
		return "", time.Time{}, err
	}
	stamp := strings.Split(m.Version, "-")
	if len(stamp) != 3 {
		return "", time.Time{}, fmt.Errorf("%s: expected a pseudo-version of golang.org/x/vulndb", m.Version)
	}
	made, err := time.Parse("20060102150405", stamp[1])
	return filepath.Join(m.Dir, "data", "osv"), made, err
}

// read takes the findings that reach a symbol out of govulncheck's stream, one of each vulnerability and module.
func read(r io.Reader) ([]reached, string, error) {
	known, first, goVersion := map[string]osv{}, map[[2]string]finding{}, ""
	for dec := json.NewDecoder(r); ; {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, "", err
		}
		switch {
		case m.Config != nil:
			goVersion = m.Config.GoVersion
		case m.OSV != nil:
			known[m.OSV.ID] = *m.OSV
		case m.Finding != nil && len(m.Finding.Trace) > 0 && m.Finding.Trace[0].Function != "":
			id := [2]string{m.Finding.OSV, m.Finding.Trace[0].Module}
			if _, seen := first[id]; !seen {
				first[id] = *m.Finding
			}
		}
	}
	if goVersion == "" {
		return nil, "", errors.New("it ended before it began")
	}
	var out []reached
	byName := func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }
	for _, id := range slices.SortedFunc(maps.Keys(first), byName) {
		f := first[id]
		at := f.Trace[0]
		out = append(out, reached{known[f.OSV], at.Module, at.Version, f.Fixed, way(f.Trace)})
	}
	return out, goVersion, nil
}

// way says from where in our code the vulnerable symbol is reached.
func way(trace []frame) string {
	from := trace[len(trace)-1]
	s := fmt.Sprintf("%s calls %s", name(from), name(trace[0]))
	if from.Position != nil {
		s = fmt.Sprintf("%s:%d: %s", from.Position.Filename, from.Position.Line, s)
	}
	return s
}

func name(f frame) string {
	fn := f.Function
	if f.Receiver != "" {
		fn = strings.TrimPrefix(f.Receiver, "*") + "." + fn
	}
	return f.Package + "." + fn
}

// judge prints what must be done, and reports whether nothing must.
func judge(out io.Writer, found []reached, accepted map[string]string, goVersion string) bool {
	ok := true
	used := map[string]bool{}
	for _, v := range found {
		if v.module == "stdlib" {
			continue
		}
		if _, known := accepted[v.ID]; known {
			used[v.ID] = true
			continue
		}
		ok = false
		fixed := "no version mends it"
		if v.fixed != "" {
			fixed = "mended by " + v.fixed
		}
		fmt.Fprintf(out, "%s %s\n    %s@%s, %s; https://pkg.go.dev/vuln/%s\n    %s\n",
			v.ID, v.Summary, v.module, v.version, fixed, v.ID, v.way)
	}
	for _, id := range slices.Sorted(maps.Keys(accepted)) {
		if !used[id] {
			ok = false
			fmt.Fprintf(out, "%s is not reached any more: remove it from tools/vuln/accepted.txt\n", id)
		}
	}
	var ids []string
	newest := ""
	for _, v := range found {
		if v.module == "stdlib" {
			ids = append(ids, v.ID)
			newest = later(newest, v.fixed)
		}
	}
	if len(ids) > 0 {
		fmt.Fprintf(out, `WARNING: build Marina with go%s or newer: %s has %d known vulnerabilities that its code reaches:
    %s
`, strings.TrimPrefix(newest, "v"), goVersion, len(ids), strings.Join(ids, " "))
	}
	return ok
}

// later is the later of two versions v1.2.3.
func later(a, b string) string {
	var x, y [3]int
	fmt.Sscanf(a, "v%d.%d.%d", &x[0], &x[1], &x[2])
	fmt.Sscanf(b, "v%d.%d.%d", &y[0], &y[1], &y[2])
	if slices.Compare(x[:], y[:]) >= 0 {
		return a
	}
	return b
}

func tell(out io.Writer, found []reached, made time.Time, ok bool) {
	if age := time.Since(made); age > oldAfter {
		fmt.Fprintf(out, "WARNING: the vulnerability database is %d days old: make vuln-update\n", int(age.Hours()/24))
	}
	if !ok {
		return
	}
	n := 0
	for _, v := range found {
		if v.module != "stdlib" {
			n++
		}
	}
	fmt.Fprintf(out, "vulnerabilities of modules reached: %d, accepted; database of %s\n", n, made.Format(time.DateOnly))
}

// parseAccepted reads lines of an id, the date since when it is accepted, and the reason.
func parseAccepted(text string) (map[string]string, error) {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, " ", 3)
		if len(f) < 3 {
			return nil, fmt.Errorf("accepted.txt: %q is not an id, a date and a reason", line)
		}
		if _, err := time.Parse(time.DateOnly, f[1]); err != nil {
			return nil, fmt.Errorf("accepted.txt: %q: %w", line, err)
		}
		out[f[0]] = f[2]
	}
	return out, nil
}
