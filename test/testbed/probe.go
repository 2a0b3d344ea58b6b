package testbed

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Record is one line that a probe wrote about itself.
type Record struct {
	Event, Task, Incarnation, Version, Boot string
	PID, Code                               int
	At                                      time.Time
}

// Records reads the reports of the tasks whose ids begin with prefix, by task, in the order they wrote.
func (h *Datacenter) Records(prefix string) (map[string][]Record, error) {
	out := map[string][]Record{}
	files, err := filepath.Glob(filepath.Join(h.Reports, prefix+"*.jsonl"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		task := strings.TrimSuffix(filepath.Base(name), ".jsonl")
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var r Record
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				f.Close()
				return nil, fmt.Errorf("report of %s: %w", task, err)
			}
			if r.Task != task {
				f.Close()
				return nil, fmt.Errorf("report of %s was written by %s", task, r.Task)
			}
			out[task] = append(out[task], r)
		}
		f.Close()
	}
	return out, nil
}

// Prefix returns the beginning of an app's task ids.
func Prefix(app string) string {
	return strings.ReplaceAll(strings.Trim(app, "/"), "/", "_") + ".instance-"
}

// Events counts the records of one kind.
func Events(all map[string][]Record, event string) int {
	n := 0
	for _, list := range all {
		for _, r := range list {
			if r.Event == event {
				n++
			}
		}
	}
	return n
}

// Lives is one process's life as it told it.
type Life struct {
	Task, Version string
	Start, Last   time.Time // of its first and latest record
	Term, Exit    time.Time // zero: it did not tell
}

// Lives reads the lives of an app's processes, oldest first. A task that had a second process, or one of another boot,
// is an error: a task is one process.
func (h *Datacenter) Lives(app string) ([]Life, error) {
	all, err := h.Records(Prefix(app))
	if err != nil {
		return nil, err
	}
	var out []Life
	for _, task := range slices.Sorted(maps.Keys(all)) {
		l := Life{Task: task}
		first := all[task][0]
		for _, r := range all[task] {
			if r.Incarnation != first.Incarnation {
				return nil, fmt.Errorf("task %s was started again: incarnation %s at %v, %s at %v",
					task, first.Incarnation, first.At, r.Incarnation, r.At)
			}
			switch r.Event {
			case "start":
				l.Start, l.Version = r.At, r.Version
			case "term":
				l.Term = r.At
			case "exit":
				l.Exit = r.At
			}
			l.Last = r.At
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Life) int { return a.Start.Compare(b.Start) })
	return out, nil
}

// Process is a task's first process as the kernel shows it.
type Process struct {
	Task  string
	PID   int
	Start string // in the kernel's ticks since boot
}

// Processes finds the first processes of probes whose ids begin with prefix: those that carry the id in their
// environment, write to this datacenter's reports, and are number 1 in their container.
func (h *Datacenter) Processes(prefix string) ([]Process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, dir := range dirs {
		env, _ := os.ReadFile(dir + "/environ")
		_, rest, ok := strings.Cut("\x00"+string(env), "\x00MESOS_TASK_ID="+prefix)
		if !ok {
			continue
		}
		rest, _, _ = strings.Cut(rest, "\x00")
		group, _ := os.ReadFile(dir + "/cgroup")
		status, _ := os.ReadFile(dir + "/status")
		if !strings.Contains(string(group), "/marina-"+h.ID) || field(string(status), "NSpid") != "1" {
			continue
		}
		start, err := startOf(dir)
		if err != nil {
			continue // it ended meanwhile
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		out = append(out, Process{prefix + rest, pid, start})
	}
	slices.SortFunc(out, func(a, b Process) int { return strings.Compare(a.Task+a.Start, b.Task+b.Start) })
	return out, nil
}

// field is the last word of a line of /proc/PID/status.
func field(status, name string) string {
	_, rest, _ := strings.Cut(status, "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	words := strings.Fields(line)
	if len(words) < 2 {
		return ""
	}
	return words[len(words)-1]
}

// startOf is field 22 of /proc/PID/stat; the command before it may hold anything but ends at the last parenthesis.
func startOf(dir string) (string, error) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(words) < 20 {
		return "", fmt.Errorf("%s/stat is short", dir)
	}
	return words[19], nil
}
