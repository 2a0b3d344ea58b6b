package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
)

// containerd starts shims by the path that links lead to; what is left of them is found by that.
func TestProgramsBehindALinkAreNamedByWhereTheyAre(t *testing.T) {
	real, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "bin")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	c, err := Config{Instance: "test", State: t.TempDir(), Bin: link}.complete()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(real, "containerd-shim-runc-v2"); c.shim() != want {
		t.Errorf("got %s, want %s", c.shim(), want)
	}
}

func TestConfigurationsThatCannotWorkAreRefused(t *testing.T) {
	good := Config{Instance: "test", State: t.TempDir(), Bin: t.TempDir()}
	if _, err := good.complete(); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Config){
		"run directory too long for sockets": func(c *Config) { c.Run = "/run/" + string(make([]byte, 100)) },
		"store without a host":               func(c *Config) { c.Store = &Store{URL: "nowhere"} },
		"no instance":                        func(c *Config) { c.Instance = "" },
	} {
		c := good
		change(&c)
		if _, err := c.complete(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v, want errdefs.ErrInvalidArgument", what, err)
		}
	}
}
