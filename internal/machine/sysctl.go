package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/durable"
)

const procSys = "/proc/sys"

// Sysctls changes settings of the machine and remembers in a file what they were. It is used by one goroutine, and the
// file by one process at a time.
type Sysctls struct {
	file string // made, with its directory, when the first setting is changed
	sys  string
}

// RecordedIn is the recorder whose memory is the file.
func RecordedIn(file string) *Sysctls { return &Sysctls{file: file, sys: procSys} }

// change is one setting that was changed, as the file has it. Values are numbers where they were raised, else strings.
type change struct {
	Name string          `json:"name"` // below /proc/sys: "net/ipv4/ip_forward"
	Was  json.RawMessage `json:"was"`
	Set  json.RawMessage `json:"set,omitempty"` // what it was made; without it, it is restored whatever it is by then
}

func text(value json.RawMessage) string { return strings.Trim(string(value), `"`) }

func number(n int64) json.RawMessage { return json.RawMessage(strconv.FormatInt(n, 10)) }

// Sysctl reads a setting by its name below /proc/sys.
func Sysctl(name string) (string, error) { return RecordedIn("").read(name) }

// SetSysctl makes a setting what it is to be, for one that need not be put back. One that is so already is not written.
func SetSysctl(name, value string) error { return RecordedIn("").write(name, value) }

func (s *Sysctls) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.sys, name))
	if err != nil {
		return "", fmt.Errorf("sysctl %s: %w", name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (s *Sysctls) write(name, value string) error {
	was, err := s.read(name)
	if err != nil || was == value {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.sys, name), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s is %s, must be %s and cannot be written here; set it and start again: %w", name,
			was, value, err)
	}
	return nil
}

// Set makes a setting value for as long as the datacenter is here.
func (s *Sysctls) Set(name, value string) error {
	was, err := s.read(name)
	if err != nil || was == value {
		return err
	}
	err = s.remember(change{Name: name, Was: json.RawMessage(strconv.Quote(was))})
	if err != nil {
		return err
	}
	return s.write(name, value)
}

// errNotRecorded is of changes that were not made, because what was there could not be written down.
var errNotRecorded = errors.New("settings of the machine as they were")

// Raise makes a setting that is a number and lower than least be least. A setting that this machine does not have is
// fs.ErrNotExist.
func (s *Sysctls) Raise(name string, least int64) error {
	have, err := s.read(name)
	if err != nil {
		return err
	}
	was, err := strconv.ParseInt(have, 10, 64)
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	if was >= least {
		return nil
	}
	if err := s.remember(change{Name: name, Was: number(was), Set: number(least)}); err != nil {
		return err
	}
	return s.write(name, strconv.FormatInt(least, 10))
}

// remember notes a change before it is made. What was noted first stays: a later value would be our own.
func (s *Sysctls) remember(c change) error {
	all, err := s.changes()
	if err != nil {
		return err
	}
	known := false
	for i := range all {
		if all[i].Name == c.Name {
			all[i].Set, known = c.Set, true
		}
	}
	if !known {
		all = append(all, c)
	}
	b, err := json.Marshal(all)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.file), 0o711)
	}
	if err == nil {
		err = durable.WriteFile(s.file, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNotRecorded, err)
	}
	return nil
}

func (s *Sysctls) changes() ([]change, error) {
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []change
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotRecorded, err)
	}
	return all, nil
}

// Restore makes the settings what they were and forgets them. One that was raised and that somebody else changed since
// is left.
func (s *Sysctls) Restore() error {
	all, err := s.changes()
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range all {
		if len(c.Set) > 0 {
			if is, err := s.read(c.Name); err != nil || is != text(c.Set) {
				continue
			}
		}
		errs = append(errs, s.write(c.Name, text(c.Was)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
