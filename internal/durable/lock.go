package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// lookPatience bounds how long Lock waits for those who only look whether the file is locked; each does for microseconds.
const lookPatience = 200 * time.Millisecond

// Lock is a file that this process holds and nobody else.
type Lock struct{ f *os.File }

// TakeLock takes the file name, made with mode 0600 if it is not there, and empties it: what it said is of somebody who is gone.
// One that another holds, of this process or not, is errdefs.ErrUnavailable and left as it is; Holder may tell who that is.
func TakeLock(name string) (*Lock, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = lockExclusively(f); err == nil {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Lock{f}, nil
}

// lockExclusively tells a holder from somebody who looks (Holder): whoever looks shares the lock with us.
func lockExclusively(f *os.File) error {
	for until := time.Now().Add(lookPatience); ; runtime.Gosched() {
		err := flock(f, unix.LOCK_EX)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if flock(f, unix.LOCK_SH) != nil || time.Now().After(until) {
			return fmt.Errorf("%s is held by another process: %w", f.Name(), errdefs.ErrUnavailable)
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

// Holder returns the process that holds the file name as it says itself: 0 if nobody holds it, or whoever does has not said yet.
// It changes nothing, and any number may look at once.
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
