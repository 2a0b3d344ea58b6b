package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

func TestMeminfoShowsTheGrant(t *testing.T) {
	machine := "MemTotal:       24683520 kB\nMemFree:        20662000 kB\nMemAvailable:   23417000 kB\nCached:          3056000 kB\n" +
		"SwapTotal:       1000000 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n"
	want := "MemTotal:        1048576 kB\nMemFree:         1048576 kB\nMemAvailable:    1048576 kB\nCached:                0 kB\n" +
		"SwapTotal:             0 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n"
	if got := string(meminfo([]byte(machine), kernel.GiB)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := string(meminfo([]byte(machine), 0)); got != machine {
		t.Errorf("without a limit: got %s, want the machine's", got)
	}
}

// What a running node sees changes with its grant: the same meminfo file, another size file.
func TestANodeSeesItsGrantChange(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	at := filepath.Join(root.Name(), "g", "node-0")
	var seen *os.File // as a container has it
	for _, granted := range []runtime.Limits{{MilliCPU: 1000, MemLimit: kernel.GiB}, {MilliCPU: 500, MemLimit: 2 * kernel.GiB}} {
		if err := Write(root, "g/node-0", "0123", granted); err != nil {
			t.Fatal(err)
		}
		if seen == nil {
			if seen, err = os.Open(filepath.Join(at, "meminfo")); err != nil {
				t.Fatal(err)
			}
			defer seen.Close()
		}
		b := make([]byte, 64)
		if _, err := seen.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		line, _, _ := bytes.Cut(b, []byte("\n"))
		if kb := strings.Fields(string(line)); len(kb) != 3 || kb[1] != map[int64]string{1: "1048576", 2: "2097152"}[granted.MemLimit/kernel.GiB] {
			t.Errorf("granted %d: meminfo says %q", granted.MemLimit, line)
		}
	}
	for name, want := range map[string]string{"machine-id": "0123\n", "size/size.json": `{"milliCPU":500,"mem":2147483648}`} {
		if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	for _, b := range Binds(at) {
		if _, err := os.Stat(b.Source); err != nil || !b.ReadOnly {
			t.Errorf("bind %+v: %v, want what is there, read-only", b, err)
		}
	}
}
