package machine

import (
	"errors"
	"io/fs"
	"log/slog"

	"golang.org/x/sys/unix"
)

// needed lists the limits that many containers and nodes on one machine need, each a bound and no cost by itself. They
// are of the whole machine: containers share them, and nodes cannot raise them.
var needed = []struct {
	name  string
	least int64
}{
	{"fs/inotify/max_user_instances", 8192},  // by default 128: some ten kubelets' and their pods'
	{"fs/inotify/max_user_watches", 1 << 20}, //
	{"kernel/keys/maxkeys", 20000},           // each container has a keyring, and by default a user 200
	{"kernel/keys/maxbytes", 2_000_000},      //
	{"kernel/pid_max", 4 << 20},              //
	{"net/core/wmem_default", 4 << 20},       // one transaction of nft in a node; docs/design/0001 has the measure
	{"net/netfilter/nf_conntrack_max", 262144},
}

// RaiseLimits raises those settings of the machine that are lower than many containers need; s.Restore makes them what
// they were. A setting that the machine does not have or does not let us change is logged and left; the error is that
// of the recorder, without which nothing is changed.
func (s *Sysctls) RaiseLimits(log *slog.Logger) error {
	if _, err := s.changes(); err != nil {
		return err
	}
	for _, n := range needed {
		switch err := s.Raise(n.name, n.least); {
		case err == nil, errors.Is(err, fs.ErrNotExist): // conntrack's is there with the first rule that needs it
		case errors.Is(err, errNotRecorded):
			return err
		default:
			log.Warn("setting of the machine cannot be raised; many containers may run into it", "setting", n.name, "want",
				n.least, "err", err)
		}
	}
	return nil
}

// RaiseOpenFiles gives this process as many open files as it may have. Not getting them is logged, once.
func RaiseOpenFiles(log *slog.Logger) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil && l.Cur < l.Max {
		l.Cur = l.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			log.Warn("open files stay limited", "limit", l.Cur, "err", err)
		}
	}
}
