package datacenter

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/durable"
	"github.com/marinaos/marina/internal/settings"
)

// paths are the settings whose values are paths: the daemon runs in another directory than the command that names them.
var paths = []string{"runtime", "etcd-ca", "etcd-cert", "etcd-key"}

func (l *local) settingsFile() string { return filepath.Join(l.settings.State, "settings.json") }

// settingsFlags gives a command the settings as flags; what they do not say is taken from an earlier start.
func (l *local) settingsFlags(c *cobra.Command) *cobra.Command {
	s, f := &l.settings, c.Flags()
	f.StringVar(&s.HTTPS, "https", cmp.Or(os.Getenv("MARINA_HTTPS"), settings.HTTPS), "where the gateway listens")
	f.StringVar(&s.HTTP, "http", cmp.Or(os.Getenv("MARINA_HTTP"), settings.HTTP),
		"where plain HTTP listens, loopback only; \"off\" for nowhere")
	f.StringVar(&s.AgentPort, "agent-port", cmp.Or(os.Getenv("MARINA_AGENT_PORT"), settings.AgentPort),
		"where the master listens for agents")
	f.StringVar(&s.Runtime, "runtime", os.Getenv("MARINA_RUNTIME"), "directory of containerd, runc and CNI plugins")
	f.StringVar(&s.Advertise, "advertise", "", "this machine's address for others")
	f.StringVar(&s.Hostname, "hostname", "", "this machine's name in the datacenter")
	f.StringVar(&s.Pool, "pool", "", "container addresses, a /16")
	f.StringVar(&s.VIPs, "vips", "", "virtual addresses, a /8 to /24")
	f.StringSliceVar(&s.Etcd, "etcd-endpoints", nil, "use an external etcd")
	f.StringVar(&s.EtcdCA, "etcd-ca", "", "the external etcd's CA certificate")
	f.StringVar(&s.EtcdCert, "etcd-cert", "", "client certificate for the external etcd")
	f.StringVar(&s.EtcdKey, "etcd-key", "", "key of the client certificate")
	f.IntVar(&s.StoreQuota, "store-quota", settings.StoreQuota, "how many MiB the datacenter's own store may take")
	f.StringSliceVar(&s.HostVolume, "host-volume", nil,
		"a directory of this machine that tasks may bind (root in a container is root in it)")
	f.StringSliceVar(&s.Attribute, "attribute", nil, "name=value of this machine, for constraints")
	f.StringVar(&s.Placement, "placement", settings.Placement,
		"how tasks are placed: \"spread\" over the machines, or \"binpack\" onto few")
	f.BoolVar(&s.SharedIDs, "no-user-namespaces", false,
		"run containers with this machine's own user ids, as where the kernel has no user namespaces")
	f.BoolVar(&s.Verbose, "verbose", os.Getenv("MARINA_VERBOSE") != "", "log debug messages")
	names := []string{}
	f.VisitAll(func(flag *pflag.Flag) { names = append(names, flag.Name) })
	c.PreRunE = func(c *cobra.Command, _ []string) error { return l.recall(c.Flags(), names) }
	return c
}

// recall completes the settings by those of an earlier start and notes whether anything is to change.
func (l *local) recall(f *pflag.FlagSet, names []string) error {
	var err error
	if l.settings.State, err = filepath.Abs(l.State); err != nil {
		return err
	}
	saved := map[string][]string{}
	b, err := os.ReadFile(l.settingsFile())
	if err == nil {
		err = json.Unmarshal(b, &saved)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("settings of the datacenter: %w: remove %s to begin with new ones", err, l.settingsFile())
	}
	l.said = map[string][]string{}
	for _, name := range names {
		flag := f.Lookup(name)
		if old, ok := saved[name]; ok && !flag.Changed && os.Getenv(variable(name)) == "" {
			if err := put(flag, old); err != nil {
				return fmt.Errorf("settings of the datacenter: %s: %w", name, err)
			}
		}
		if value := values(flag); slices.Contains(paths, name) && value[0] != "" {
			abs, err := filepath.Abs(value[0])
			if err == nil {
				err = flag.Value.Set(abs)
			}
			if err != nil {
				return fmt.Errorf("--%s: %w", name, err)
			}
		}
		if value := values(flag); os.Getenv(variable(name)) != "" || !slices.Equal(value, fallback(flag)) {
			l.said[name] = value
		}
	}
	l.changed = !maps.EqualFunc(l.said, saved, slices.Equal)
	return nil
}

// remember keeps the settings for later commands.
func (l *local) remember() error {
	b, err := json.MarshalIndent(l.said, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.settings.State, 0o700); err != nil {
		return &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("state directory: %v", err),
			Next: "run as root, or set MARINA_STATE"}
	}
	if !l.changed {
		return nil
	}
	return durable.WriteFile(l.settingsFile(), append(b, '\n'), 0o600)
}

func variable(flag string) string {
	return "MARINA_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func values(f *pflag.Flag) []string {
	if s, ok := f.Value.(pflag.SliceValue); ok {
		return s.GetSlice()
	}
	return []string{f.Value.String()}
}

// fallback is a flag's default value.
func fallback(f *pflag.Flag) []string {
	if _, ok := f.Value.(pflag.SliceValue); ok {
		return []string{}
	}
	return []string{f.DefValue}
}

func put(f *pflag.Flag, to []string) error {
	if s, ok := f.Value.(pflag.SliceValue); ok {
		return s.Replace(to)
	}
	if len(to) != 1 {
		return fmt.Errorf("%d values", len(to))
	}
	return f.Value.Set(to[0])
}
