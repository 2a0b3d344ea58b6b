package disk

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The reserve: MaxReserve bytes, and a part of one in ReserveShare of a filesystem that has fewer than both allow.
const (
	MaxReserve   = 4 << 30 // the store's default quota
	ReserveShare = 10
)

// checkEvery is the number of bytes between two looks of a Meter at the filesystem.
const checkEvery = 64 << 20

// Space is the size of a filesystem and what is free of it.
type Space struct {
	Size int64 // bytes in all
	Free int64 // bytes that unprivileged programs may still take
}

// Of asks for the filesystem of a directory.
func Of(dir string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Space{}, fmt.Errorf("filesystem of %s: %w", dir, err)
	}
	return Space{Size: int64(s.Blocks) * s.Bsize, Free: int64(s.Bavail) * s.Bsize}, nil
}

// Reserve is the number of bytes that are left free.
func (s Space) Reserve() int64 { return min(MaxReserve, s.Size/ReserveShare) }

// Check refuses more bytes that would not leave the reserve.
func (s Space) Check(more int64) error {
	if s.Free-more >= s.Reserve() {
		return nil
	}
	return fmt.Errorf("the master's disk has %s free, of which %s are left for the datacenter's store: %w",
		Bytes(s.Free), Bytes(s.Reserve()), errdefs.ErrResourceExhausted)
}

// Check refuses to write more bytes into a directory when its filesystem would not keep its reserve.
func Check(dir string, more int64) error {
	s, err := Of(dir)
	if err != nil {
		return err
	}
	return s.Check(more)
}

// Meter passes on what is written to it. Before each piece it asks Take for its bytes, and now and then Check whether
// the filesystem has room; either's error ends the writing. It never gives back what it took.
type Meter struct {
	To    io.Writer
	Take  func(n int64) error
	Check func(more int64) error

	unchecked int64
	started   bool
}

// Write takes, checks and writes.
func (m *Meter) Write(p []byte) (int, error) {
	n := int64(len(p))
	if m.unchecked += n; !m.started || m.unchecked >= checkEvery {
		if err := m.Check(m.unchecked); err != nil {
			return 0, err
		}
		m.started, m.unchecked = true, 0
	}
	if err := m.Take(n); err != nil {
		return 0, err
	}
	return m.To.Write(p)
}

// Bytes is a size as people read it: "512 MiB", "1.5 GiB".
func Bytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.3g GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.3g MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
