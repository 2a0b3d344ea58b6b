package cluster

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kubernetes"
)

func TestAfterIsWhatWasNotPrintedYet(t *testing.T) {
	born := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	old := []kubernetes.Event{{Time: born, Message: "created"}, {Time: born, Message: "ready"}}
	got := after(append(old, kubernetes.Event{Time: born, Message: "scaled"}), old[1])
	if len(got) != 1 || got[0].Message != "scaled" {
		t.Errorf("after the last event: %v, want the new one", got)
	}
	if got := after([]kubernetes.Event{{Time: born.Add(time.Second), Message: "new leader"}}, old[1]); len(got) != 1 {
		t.Errorf("of a new leader: %v, want its event", got)
	}
}

func TestKubectlOfTheClustersMinorIsPreferred(t *testing.T) {
	root := t.TempDir()
	for _, m := range []string{"v1.36", "v1.37"} {
		bin := filepath.Join(root, "bundle", "kubernetes", m, "bin")
		if err := os.MkdirAll(bin, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "kubernetes-"+m), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for minor, want := range map[string]string{"1.36": "kubernetes-v1.36", "1.37": "kubernetes-v1.37", "1.35": "kubernetes-v1.37"} {
		argv, err := findKubectl(filepath.Join(root, "bin"), minor)
		if err != nil || filepath.Base(argv[0]) != want || argv[1] != "kubectl" {
			t.Errorf("for %s: %v (%v), want %s", minor, argv, err, want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := findKubectl(t.TempDir(), "1.37"); err == nil {
		t.Error("got no error where there is no kubectl")
	}
}
