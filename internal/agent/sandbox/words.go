package sandbox

import (
	"encoding/json"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Bounds of what is read of a task's errors, and told of them.
const (
	wordsTail = 64 << 10 // a panic is followed by the stacks of its goroutines
	wordsMost = 400      // bytes
)

// final matches lines that tell why a program ends.
var final = regexp.MustCompile(`^(?:panic: |fatal error: |control-plane: |marina-node: )|"level":"(?:fatal|panic)"`)

// LastWords returns the last that a task wrote to its errors. It is asked of programs that Marina brings alone: what
// others print may be secret.
func (d *Dir) LastWords(task kernel.TaskID) string {
	root, err := d.Open(task)
	if err != nil {
		return ""
	}
	defer root.Close()
	f, size, err := openRegular(root, "stderr", os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(max(0, size-wordsTail), io.SeekStart); err != nil {
		return ""
	}
	tail, err := io.ReadAll(io.LimitReader(f, wordsTail))
	if err != nil {
		return ""
	}
	return wordsOf(string(tail))
}

// wordsOf is the line of a program's errors that tells why it ended: the first that says so, since what follows tells
// less, or else the last.
func wordsOf(tail string) string {
	last, why := "", ""
	for line := range strings.Lines(tail) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		last = line
		if why == "" && final.MatchString(line) {
			why = line
		}
	}
	if why == "" {
		why = last
	}
	var j struct{ Msg, Path, Error string } // as etcd logs
	if json.Unmarshal([]byte(why), &j) == nil && j.Msg != "" {
		why = strings.TrimSpace(j.Msg + " " + j.Path)
		if j.Error != "" {
			why += ": " + j.Error
		}
	}
	if len(why) > wordsMost {
		why = strings.ToValidUTF8(why[:wordsMost-3], "") + "..."
	}
	return why
}
