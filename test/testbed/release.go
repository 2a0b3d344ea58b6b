package testbed

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed release.txt
var releaseText string

// ErrNoHistory is why the last release cannot be built here: the checkout is shallow, or none.
var ErrNoHistory = errors.New("the last release is not in this checkout's history")

// Release is the program of the last release, which release.txt names, built from the repository's history and kept in
// .cache/release. MARINA_RELEASE names one that is built already.
func (w *Workshop) Release() (string, error) {
	if built := os.Getenv("MARINA_RELEASE"); built != "" {
		return filepath.Abs(built)
	}
	name, err := releaseName(releaseText)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(w.root, ".cache", "release")
	program := filepath.Join(dir, "marina-"+name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if out, err := exec.Command("git", "-C", w.root, "cat-file", "-e", name+"^{commit}").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s: git fetch --unshallow brings it, or MARINA_RELEASE names a built marina: %s",
			ErrNoHistory, name, strings.TrimSpace(string(out)))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	src, err := os.MkdirTemp(dir, "src")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(src)
	archive := filepath.Join(src, "release.tar")
	for _, args := range [][]string{
		{"git", "-C", w.root, "archive", "-o", archive, name, "go.mod", "go.sum", "cmd", "internal"},
		{"tar", "-C", src, "-xf", archive},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s of release %s: %w: %s", args[0], name, err, out)
		}
	}
	built := filepath.Join(src, "marina")
	flags := "-s -w -X " + module + "/internal/cli.Version=" + name
	if err := w.goTool("build", "-C", src, "-trimpath", "-ldflags", flags, "-o", built, "./cmd/marina"); err != nil {
		return "", fmt.Errorf("release %s: %w", name, err)
	}
	return program, os.Rename(built, program)
}

// releaseName is the one line of release.txt that is no comment.
func releaseName(text string) (string, error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line, nil
		}
	}
	return "", errors.New("release.txt names no release")
}

// Become replaces the datacenter's program, by `marina up` of another, and waits until daemon and agent run that.
func (h *Datacenter) Become(t testing.TB, program string) {
	t.Helper()
	if out, err := h.UpAs(program); err != nil {
		t.Fatalf("up of %s: %v\n%s", program, err, out)
	}
	Until(t, commandLimit, "daemon and agent of "+program, func() error {
		for _, name := range []string{"daemon", "agent"} {
			pid, err := h.PID(name)
			if err != nil {
				return err
			}
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != program {
				return fmt.Errorf("the %s runs %s, %v", name, exe, err)
			}
		}
		return nil
	})
}
