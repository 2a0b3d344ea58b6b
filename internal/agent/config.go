package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/agent/secret"
	"github.com/marinaos/marina/internal/kernel"

	"github.com/marinaos/marina/internal/machine"
	"github.com/marinaos/marina/internal/metrics"
	"github.com/marinaos/marina/internal/runtime"
)

// Config holds an agent's settings. Zero values mean the defaults.
type Config struct {
	State string // the agent's own directory, required; one agent at a time

	ID         kernel.AgentID    // default: the one in the directory, else drawn
	Hostname   string            // default: the machine's
	Address    netip.Addr        // where other machines reach this one, required
	Attributes map[string]string // for constraints
	Region     string            //
	Zone       string            //
	Total      *kernel.Resources // what it gives to tasks; default: what the machine has less Reserve
	// kept for the machine itself; zero components: no cpu, 1/16 of the memory, 1/10 of the disk
	Reserve  kernel.Resources
	Ports    kernel.PortRange // default: 31000 to 32000
	Version  string           // of the program
	Warnings []string         // told at registration, beside what the agent finds out itself
	Boot     string           // default: the kernel's boot id

	Masters []string    // host:port, tried in turn
	TLS     *tls.Config // for dialing a master, required; NextProtos is set by the agent

	HostVolumes []string // directories of the machine that tasks may bind, links resolved; default none

	// Run is the directory below which the files of running instances are mounted, in memory; default: "run" in State.
	Run string

	// Bundles finds the directory of a bundle when a task that wants it is about to start; default: there is none.
	Bundles func(name string) (dir string, ok bool)

	// BundleVersions lists the bundles there are by name, with the version of each. It is asked often and should be cheap;
	// when the answer changes the agent registers anew. Default: none are told.
	BundleVersions func() map[string]string

	BundleInterval time.Duration // between looks at them; default 2 s

	SecretsEvery    time.Duration // between looks for newer contents of secrets; default 10 min
	SecretsPatience time.Duration // how long a start waits for its secrets; default 1 min

	ParallelStarts int // instances being started at a time; default 8
	ParallelPulls  int // images being pulled at a time; default 4
	ParallelChecks int // checks being run at a time; default 64
	// from "no new connections" to TERM for instances that have any; default 500 ms, negative: none
	Drain       time.Duration
	CallTimeout time.Duration // of one call to the runtime or the network; default 30 s
	PullTimeout time.Duration // of one image; default 15 min
	Stuck       time.Duration // from KILL to saying that a task does not end; default 5 s
	Reconcile   time.Duration // between comparisons with the runtime's truth; default 10 s

	Heartbeat  time.Duration // default kernel.HeartbeatInterval
	BackoffMax time.Duration // between attempts to reach a master; default 2 s
	Suspect    time.Duration // a connection that is silent for so long is given up; default 6 s

	LogLimit    int64         // bytes of stdout, and of stderr, before it is rotated; default 10 MiB
	LogKeep     int           // rotated files kept; default 2
	LogInterval time.Duration // between looks at the sizes; default 1 s

	DiskInterval time.Duration // between measurements of the tasks' disk use; default 15 s
	DiskDefault  int64         // bytes that a task without a disk limit may use; default 10 GiB, negative: no bound
	MinFreeDisk  int64         // bytes free on the machine below which nothing is started; default 256 MiB
	SandboxAge   time.Duration // sandboxes of ended tasks are removed after; default 48 h
	SandboxCount int           // and the oldest of more than this many; default 512
	SandboxFree  int64         // and the oldest while less is free, in bytes; default 1 GiB
}

// Secrets tells what references of kernel.File.Secret stand for.
type Secrets = secret.Source

// Deps holds the rooms that an agent works with. All are required but Secrets and Dial.
type Deps struct {
	Runtime runtime.Runtime
	Network Network
	Log     *slog.Logger
	Metrics *metrics.Registry // nil: nothing is measured

	// Secrets is asked for the secrets of tasks that have some. Without it no such task starts.
	Secrets Secrets

	// Dial reaches a master before TLS; default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

func (c Config) runDir() string { return cmp.Or(c.Run, filepath.Join(c.State, "run")) }

// complete fills in defaults and refuses what cannot work, with errdefs.ErrInvalidArgument.
func (c Config) complete() (Config, error) {
	if c.State == "" || !c.Address.IsValid() {
		return c, fmt.Errorf("agent needs a state directory and an address: %w", errdefs.ErrInvalidArgument)
	}
	if len(c.Masters) > 0 && c.TLS == nil {
		return c, fmt.Errorf("agent needs a TLS configuration to reach its masters: %w", errdefs.ErrInvalidArgument)
	}
	if c.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("hostname: %w", err)
		}
		c.Hostname = name
	}
	if c.Boot == "" {
		boot, err := machine.BootID()
		if err != nil {
			return c, err
		}
		c.Boot = boot
	}
	if c.Ports == (kernel.PortRange{}) {
		c.Ports = kernel.PortRange{First: 31000, Last: 32000}
	}
	c.Run = c.runDir()
	if c.Bundles == nil {
		c.Bundles = func(string) (string, bool) { return "", false }
	}
	if c.BundleVersions == nil {
		c.BundleVersions = func() map[string]string { return nil }
	}
	c.BundleInterval = cmp.Or(c.BundleInterval, 2*time.Second)
	c.SecretsEvery = cmp.Or(c.SecretsEvery, 10*time.Minute)
	c.SecretsPatience = cmp.Or(c.SecretsPatience, time.Minute)
	c.Drain = max(0, cmp.Or(c.Drain, 500*time.Millisecond))
	c.ParallelStarts = cmp.Or(c.ParallelStarts, 8)
	c.ParallelPulls = cmp.Or(c.ParallelPulls, 4)
	c.ParallelChecks = cmp.Or(c.ParallelChecks, 64)
	c.CallTimeout = cmp.Or(c.CallTimeout, 30*time.Second)
	c.PullTimeout = cmp.Or(c.PullTimeout, 15*time.Minute)
	c.Stuck = cmp.Or(c.Stuck, 5*time.Second)
	c.Reconcile = cmp.Or(c.Reconcile, 10*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, kernel.HeartbeatInterval)
	c.BackoffMax = cmp.Or(c.BackoffMax, 2*time.Second)
	c.Suspect = cmp.Or(c.Suspect, 6*time.Second)
	c.LogLimit = cmp.Or(c.LogLimit, 10*kernel.MiB)
	c.LogKeep = cmp.Or(c.LogKeep, 2)
	c.LogInterval = cmp.Or(c.LogInterval, time.Second)
	c.DiskDefault = cmp.Or(c.DiskDefault, 10*kernel.GiB)
	c.DiskInterval = cmp.Or(c.DiskInterval, 15*time.Second)
	c.MinFreeDisk = cmp.Or(c.MinFreeDisk, 256*kernel.MiB)
	c.SandboxAge = cmp.Or(c.SandboxAge, 48*time.Hour)
	c.SandboxCount = cmp.Or(c.SandboxCount, 512)
	c.SandboxFree = cmp.Or(c.SandboxFree, kernel.GiB)
	return c, nil
}
