package datacenter

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/spf13/cobra"

	"github.com/marinaos/marina/internal/cli/client"
	"github.com/marinaos/marina/internal/cli/command"
)

// begun parses a command line of up as a later process would, and keeps its settings.
func begun(t *testing.T, state string, args ...string) *local {
	t.Helper()
	v := newLocal(&command.Env{}, Programs{})
	c := v.settingsFlags(&cobra.Command{Use: "up"})
	c.Flags().StringVar(&v.State, "state", state, "")
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if err := c.PreRunE(c, nil); err != nil {
		t.Fatal(err)
	}
	if err := v.remember(); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSettingsAreSaidOnce(t *testing.T) {
	state := t.TempDir()
	first := begun(t, state, "--https", ":9443", "--host-volume", "/srv,/data", "--runtime", "here", "--verbose")
	if !first.changed {
		t.Error("the first start changes nothing, want its settings kept")
	}
	if want, _ := filepath.Abs("here"); first.settings.Runtime != want {
		t.Errorf("runtime %q, want %q", first.settings.Runtime, want)
	}
	again := begun(t, state)
	if again.changed || !reflect.DeepEqual(again.settings, first.settings) {
		t.Errorf("without flags: %+v, changed %v, want %+v as before", again.settings, again.changed, first.settings)
	}
	other := begun(t, state, "--https", ":9444")
	if !other.changed || other.settings.HTTPS != ":9444" || !reflect.DeepEqual(other.settings.HostVolume, []string{"/srv", "/data"}) {
		t.Errorf("with one flag: %+v, changed %v, want that one other", other.settings, other.changed)
	}
	back := begun(t, state, "--https", ":8443", "--host-volume", "")
	if !back.changed || back.settings.HTTPS != ":8443" || len(back.settings.HostVolume) != 0 {
		t.Errorf("set back: %+v, changed %v", back.settings, back.changed)
	}
	if last := begun(t, state); last.changed || last.settings.HTTPS != ":8443" || len(last.settings.HostVolume) != 0 {
		t.Errorf("after setting back: %+v, changed %v", last.settings, last.changed)
	}
}

func TestEnvironmentWinsOverWhatWasSaid(t *testing.T) {
	state := t.TempDir()
	begun(t, state, "--http", "127.0.0.1:9000")
	t.Setenv("MARINA_HTTP", "127.0.0.1:9001")
	if v := begun(t, state); v.settings.HTTP != "127.0.0.1:9001" || !v.changed {
		t.Errorf("got %q, changed %v, want the environment's", v.settings.HTTP, v.changed)
	}
}

func TestDamagedSettingsAreNamed(t *testing.T) {
	state := t.TempDir()
	if err := os.WriteFile(filepath.Join(state, "settings.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := newLocal(&command.Env{Options: client.Options{State: state}}, Programs{})
	c := v.settingsFlags(&cobra.Command{Use: "up"})
	if err := c.PreRunE(c, nil); err == nil {
		t.Error("got no error")
	}
}
