package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/durable"
)

// setting is a setting of the machine that was raised: its name below /proc/sys, what it was and what it was made.
type setting struct {
	Name string `json:"name"`
	Was  int64  `json:"was"`
	Set  int64  `json:"set"`
}

// least is what many containers and nodes on one machine need, each a bound and no cost by itself. They are of the whole
// machine: containers share them, and nodes cannot raise them.
var least = []setting{
	{Name: "fs/inotify/max_user_instances", Set: 8192},  // by default 128: some ten kubelets' and their pods'
	{Name: "fs/inotify/max_user_watches", Set: 1 << 20}, //
	{Name: "kernel/keys/maxkeys", Set: 20000},           // each container has a keyring, and by default a user 200
	{Name: "kernel/keys/maxbytes", Set: 2_000_000},      //
	{Name: "kernel/pid_max", Set: 4 << 20},              //
	{Name: "net/core/wmem_default", Set: 4 << 20},       // one transaction of nft in a node; docs/design/0001 has the measure
	{Name: "net/netfilter/nf_conntrack_max", Set: 262144},
}

const procSys = "/proc/sys"

// settingsFile is where it is kept what settings were, in the state folder of a machine.
func settingsFile(state string) string { return filepath.Join(state, "agent", "sysctls.json") }

// Tune raises those settings of the machine that are lower than many containers need, and notes in the machine's state
// folder what they were. A setting that the machine does not have or does not let us change is logged and left; the error is
// that of the note, without which nothing is changed.
func Tune(state string, log *slog.Logger) error { return tune(procSys, state, log) }

// Untune makes the settings that Tune raised what they were, but for those that somebody else changed since.
func Untune(state string) error { return untune(procSys, state) }

func tune(sys, state string, log *slog.Logger) error {
	noted, err := readSettings(state)
	if err != nil {
		return err
	}
	for _, s := range least {
		was, err := readSetting(sys, s.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // conntrack's is there with the first rule that needs it
		}
		if err != nil {
			log.Warn("setting of the machine cannot be read", "setting", s.Name, "err", err)
			continue
		}
		if was >= s.Set {
			continue
		}
		known := false
		for i := range noted {
			if noted[i].Name == s.Name {
				noted[i].Set, known = s.Set, true
			}
		}
		if !known {
			noted = append(noted, setting{s.Name, was, s.Set})
		}
		if err := writeSettings(state, noted); err != nil { // first: nothing is changed that cannot be changed back
			return err
		}
		if err := writeSetting(sys, s.Name, s.Set); err != nil {
			log.Warn("setting of the machine cannot be raised; many containers may run into it", "setting", s.Name, "is", was, "want", s.Set, "err", err)
		}
	}
	return nil
}

func untune(sys, state string) error {
	noted, err := readSettings(state)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range noted {
		if is, err := readSetting(sys, s.Name); err == nil && is == s.Set {
			errs = append(errs, writeSetting(sys, s.Name, s.Was))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(settingsFile(state)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func readSetting(sys, name string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(sys, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

func writeSetting(sys, name string, value int64) error {
	return os.WriteFile(filepath.Join(sys, name), []byte(strconv.FormatInt(value, 10)), 0o644)
}

func readSettings(state string) ([]setting, error) {
	b, err := os.ReadFile(settingsFile(state))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []setting
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("settings of the machine as they were: %w", err)
	}
	return all, nil
}

func writeSettings(state string, all []setting) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	at := settingsFile(state)
	err = os.MkdirAll(filepath.Dir(at), 0o711)
	if err == nil {
		err = durable.WriteFile(at, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("settings of the machine as they were: %w", err)
	}
	return nil
}
