package durable

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestALockIsOnesAtATime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	if got := Holder(name); got != 0 {
		t.Errorf("nobody holds what is not there: got %d", got)
	}
	a, err := TakeLock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if got := Holder(name); got != 0 {
		t.Errorf("a holder that has not said who it is: got %d, want 0", got)
	}
	if err := a.WritePID(); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeLock(t.Context(), name); !errdefs.IsUnavailable(err) {
		t.Errorf("a lock that is held: got %v, want errdefs.ErrUnavailable", err)
	}
	if got := Holder(name); got != os.Getpid() {
		t.Errorf("holder after an attempt by another: got %d, want %d", got, os.Getpid())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := Holder(name); got != 0 {
		t.Errorf("holder of a lock that was given back: got %d, want 0", got)
	}
	b, err := TakeLock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := content(t, name); len(got) != 0 {
		t.Errorf("taken again it says %q, want nothing of the holder before", got)
	}
}

// Those who look share the lock for an instant each; whoever takes it must not be told that it is held.
func TestWhoeverLooksDoesNotKeepALockFromBeingTaken(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	var wg sync.WaitGroup
	var stop atomic.Bool
	wg.Go(func() {
		for !stop.Load() {
			Holder(name)
		}
	})
	for range 500 {
		l, err := TakeLock(t.Context(), name)
		if err != nil {
			t.Error(err)
			break
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
}

func TestOfManyWhoTakeALockOneGetsIt(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	var wg sync.WaitGroup
	got := make(chan *Lock, 16)
	for range cap(got) {
		wg.Go(func() {
			switch l, err := TakeLock(t.Context(), name); {
			case err == nil:
				got <- l
			case !errdefs.IsUnavailable(err):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(got) > 1 {
		t.Errorf("%d hold it, want one", len(got))
	}
	close(got)
	for l := range got {
		l.Close()
	}
}

func TestADeadHolderFreesItsLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	cmd := exec.CommandContext(t.Context(), "flock", name, "sh", "-c", "echo held; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no flock(1): %v", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeLock(t.Context(), name); !errdefs.IsUnavailable(err) {
		t.Errorf("held by another process: got %v, want errdefs.ErrUnavailable", err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	l, err := TakeLock(t.Context(), name)
	if err != nil {
		t.Fatalf("its holder is dead: %v", err)
	}
	l.Close()
}

func TestALockThatAProcessHoldsIsRefusedAtOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	synctest.Test(t, func(t *testing.T) {
		held, err := TakeLock(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		begin := time.Now()
		if _, err := TakeLock(t.Context(), name); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("taking it again: %v, want unavailable and which file", err)
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("waited %v for a lock that nobody will give back, want not at all", waited)
		}
	})
}

func TestALockIsWaitedForWhileSomebodyLooksAtIt(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	look := func() *os.File {
		f, err := os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o600)
		if err == nil {
			err = flock(f, unix.LOCK_SH)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	synctest.Test(t, func(t *testing.T) {
		brief := look()
		time.AfterFunc(lookPatience/2, func() { brief.Close() })
		l, err := TakeLock(t.Context(), name)
		if err != nil {
			t.Fatalf("while somebody looks for a moment: %v, want it taken afterwards", err)
		}
		l.Close()

		looker := look()
		defer looker.Close()
		if _, err := TakeLock(t.Context(), name); !errdefs.IsUnavailable(err) {
			t.Errorf("while somebody looks for ever: %v, want unavailable in the end", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin := time.Now()
		if _, err := TakeLock(ctx, name); !errors.Is(err, context.Canceled) || time.Since(begin) != 0 {
			t.Errorf("told to end: %v after %v, want the end at once", err, time.Since(begin))
		}
	})
}
