package durable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// lookPatience bounds the wait for those who only look whether a file is locked: Holder shares its lock for a
// moment.
const lookPatience = 200 * time.Millisecond

// Lock is a file that this process holds and nobody else.
type Lock struct{ f *os.File }

// TakeLock takes the file name, made with mode 0600 if it is not there, and empties it: what it said is of somebody who
// is gone. One that another holds, of this process or not, is errdefs.ErrUnavailable at once, and left as it is; Holder
// may tell who that is.
func TakeLock(ctx context.Context, name string) (*Lock, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	held := fmt.Errorf("%s is held by another process: %w", name, errdefs.ErrUnavailable)
	waiting, cancel := context.WithTimeoutCause(ctx, lookPatience, held)
	defer cancel()
	if err = lockAlone(waiting, f, held); err == nil {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Lock{f}, nil
}

// lockAlone locks a file for this process alone. One that a process holds so is the error held, at once; those that
// only share the lock are waited for until ctx ends.
func lockAlone(ctx context.Context, f *os.File, held error) error {
	for {
		err := flock(f, unix.LOCK_EX)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if flock(f, unix.LOCK_SH) != nil {
			return held
		}
		if err := flock(f, unix.LOCK_UN); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookPatience / 20):
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// WritePID writes into the file which process this is, for Holder and for people.
func (l *Lock) WritePID() error {
	_, err := l.f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	return err
}

// Close gives the lock back. The file stays: to remove it would let two hold locks of one name.
func (l *Lock) Close() error { return l.f.Close() }

// Holder returns the process that holds the file name as it says itself: 0 if nobody holds it, or whoever does has not
// said yet. It changes nothing, and any number may look at once.
func Holder(name string) int {
	f, err := os.Open(name)
	if err != nil {
		return 0
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_SH); !errors.Is(err, unix.EWOULDBLOCK) {
		return 0
	}
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}
