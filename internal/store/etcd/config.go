package etcd

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
)

// Embedded configures a member inside this process. Only Dir is required.
type Embedded struct {
	// Dir is the directory of the member's data, created with mode 0700. Two processes never share one.
	Dir string

	// Name of the member. Default: "m1".
	Name string

	// LeaseTTL is the time after which a leader that stopped renewing is replaced. Whole seconds, at least 2. Default: 6
	// s.
	LeaseTTL time.Duration

	// Timeout bounds every call that has no earlier deadline of its own. Default: 10 s.
	Timeout time.Duration

	// StartTimeout bounds the wait for the member to lead or follow after its log was replayed. Default: 60 s.
	StartTimeout time.Duration

	// CloseTimeout bounds Close. Default: 10 s.
	CloseTimeout time.Duration

	// CompactAfter is the minimum age of history that is dropped, and the interval of dropping. Default: 1 minute.
	CompactAfter time.Duration

	// QuotaBytes is the size that the database is meant to have at most. Writes are refused a quarter above it, or above
	// what the database had at the start: room for deletes, which are writes too. Default: 4 GiB.
	QuotaBytes int64

	// MinFreeBytes is the free space on Dir's filesystem under which the store does not start, and under which Status
	// reports a problem. Default: 128 MiB.
	MinFreeBytes int64

	// ClientSocket, if set, is the path of a unix socket on which etcd's own API is served without authentication, for
	// etcdctl: put it into a directory that only root can enter. Default: none.
	ClientSocket string

	// Log gets etcd's warnings and errors. Default: they are dropped.
	Log *slog.Logger
}

func (c Embedded) withDefaults() (Embedded, error) {
	if c.Dir == "" {
		return c, fmt.Errorf("etcd: no data directory: %w", errdefs.ErrInvalidArgument)
	}
	c.Name = cmp.Or(c.Name, "m1")
	c.LeaseTTL = cmp.Or(c.LeaseTTL, defaultLeaseTTL)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.StartTimeout = cmp.Or(c.StartTimeout, 60*time.Second)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, 10*time.Second)
	c.CompactAfter = cmp.Or(c.CompactAfter, time.Minute)
	c.QuotaBytes = cmp.Or(c.QuotaBytes, 4<<30)
	c.MinFreeBytes = cmp.Or(c.MinFreeBytes, 128<<20)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c, checkLeaseTTL(c.LeaseTTL)
}

// External configures the client of a quorum of other processes. Only Endpoints is required. Its members need
// --max-txn-ops=8192 and --max-request-bytes=10485760, or large transactions are refused.
type External struct {
	// Endpoints are URLs of members: https://, http:// or unix://.
	Endpoints []string

	// CertFile, KeyFile and CAFile are the client's certificate and key and the members' CA, in PEM. Default: none of
	// them with http:// and unix://; the system's CAs and no certificate with https://.
	CertFile, KeyFile, CAFile string

	// Prefix begins all keys, so that several datacenters can share a quorum. At most 64 bytes. Default: "marina/".
	Prefix string

	// LeaseTTL, Timeout, StartTimeout and CloseTimeout are as in Embedded, with the same defaults; StartTimeout bounds
	// the first answer from the quorum.
	LeaseTTL, Timeout, StartTimeout, CloseTimeout time.Duration

	// Log gets the client's warnings and errors. Default: they are dropped.
	Log *slog.Logger
}

func (c External) withDefaults() (External, error) {
	if len(c.Endpoints) == 0 {
		return c, fmt.Errorf("etcd: no endpoints: %w", errdefs.ErrInvalidArgument)
	}
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	if len(c.Prefix) > maxPrefix {
		return c, fmt.Errorf("etcd: key prefix of %d bytes, at most %d: %w",
			len(c.Prefix), maxPrefix, errdefs.ErrInvalidArgument)
	}
	c.LeaseTTL = cmp.Or(c.LeaseTTL, defaultLeaseTTL)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.StartTimeout = cmp.Or(c.StartTimeout, 60*time.Second)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, 10*time.Second)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c, checkLeaseTTL(c.LeaseTTL)
}

const (
	defaultPrefix   = "marina/"
	defaultLeaseTTL = 6 * time.Second
	defaultTimeout  = 10 * time.Second
	maxPrefix       = 64
)

func checkLeaseTTL(ttl time.Duration) error {
	if ttl < 2*time.Second || ttl%time.Second != 0 {
		return fmt.Errorf("etcd: lease of %v: want whole seconds, at least 2: %w", ttl, errdefs.ErrInvalidArgument)
	}
	return nil
}
