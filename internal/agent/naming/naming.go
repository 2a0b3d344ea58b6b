package naming

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
)

// Instance names what is an instance's in the agent's directories. It is a hash, so that no instance id can be a path
// or too long for a name.
func Instance(g kernel.InstanceID) string {
	sum := sha256.Sum256([]byte(g))
	return hex.EncodeToString(sum[:16])
}

// Container names a task's container: readable, filename-safe, at most 64 characters of [a-zA-Z0-9-], and different for
// each boot, so that a container of before a restart of the machine is never taken for a later one.
func Container(t kernel.TaskID, boot string) string {
	sum := sha256.Sum256([]byte(string(t) + "\x00" + boot))
	return Dashed(string(t), 40) + "-" + hex.EncodeToString(sum[:10])
}

// Dashed makes a name of letters, digits and single inner dashes out of s, keeping its last limit characters, where ids
// differ most.
func Dashed(s string, limit int) string {
	parts := strings.FieldsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	})
	out := strings.Join(parts, "-")
	if len(out) > limit {
		out = strings.TrimLeft(out[len(out)-limit:], "-")
	}
	if out == "" {
		return "task"
	}
	return out
}

// MaxTask is the longest task id an agent takes: it names the sandbox.
const MaxTask = 200

// IsTask reports whether a task id can name a directory as it is.
func IsTask(id kernel.TaskID) bool {
	if id == "" || len(id) > MaxTask || id[0] == '.' || id[0] == '-' {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-~@+=", c) >= 0) {
			return false
		}
	}
	return true
}

// IsFile reports whether s can name a file as it is.
func IsFile(s string) bool { return IsTask(kernel.TaskID("f"+s)) && s != "" && s[0] != '.' }
