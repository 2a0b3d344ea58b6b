package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// Binds are the mounts of what a node is told of itself, whose files are at the given place. Its size is a directory,
// in which the file is replaced; that over /proc/meminfo is changed in place.
func Binds(at string) []runtime.Bind {
	return []runtime.Bind{
		{Source: filepath.Join(at, "machine-id"), Target: "/etc/machine-id", ReadOnly: true},
		{Source: filepath.Join(at, "meminfo"), Target: "/proc/meminfo", ReadOnly: true},
		{Source: filepath.Join(at, "size"), Target: kernel.NodeTarget, ReadOnly: true},
	}
}

// Write writes the files of a node into the directory dir below root: its id, and what it is granted.
func Write(root *os.Root, dir, id string, granted runtime.Limits) error {
	if err := root.MkdirAll(path.Join(dir, "size"), 0o755); err != nil {
		return err
	}
	if err := root.WriteFile(path.Join(dir, "machine-id"), []byte(id+"\n"), 0o644); err != nil {
		return err
	}
	machine, err := os.ReadFile("/proc/meminfo")
	if err == nil {
		err = overwrite(root, path.Join(dir, "meminfo"), meminfo(machine, granted.MemLimit))
	}
	if err != nil {
		return err
	}
	b, err := json.Marshal(kernel.NodeSize{MilliCPU: granted.MilliCPU, Mem: granted.MemLimit})
	if err != nil {
		return err
	}
	return durable.In(root).ReplaceFile(path.Join(dir, "size", "size.json"), b, 0o644)
}

// overwrite changes a file in place: it is bound by itself, and another of its name would not be seen.
func overwrite(root *os.Root, name string, content []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(content)))
}

// meminfo is the machine's /proc/meminfo with mem bytes for total, free and available memory, no swap, and nothing told
// of what others use; with mem zero it is the machine's. Lines keep their length, so that a file of it can be changed
// in place.
func meminfo(machine []byte, mem int64) []byte {
	if mem <= 0 {
		return machine
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(machine)) {
		name, rest, ok := strings.Cut(line, ":")
		if !ok || !strings.HasSuffix(rest, " kB\n") || name == "Hugepagesize" {
			out.WriteString(line)
			continue
		}
		var kb int64
		switch name {
		case "MemTotal", "MemFree", "MemAvailable":
			kb = mem >> 10
		}
		fmt.Fprintf(&out, "%s:%*d kB\n", name, len(rest)-len(" kB\n"), kb)
	}
	return out.Bytes()
}
