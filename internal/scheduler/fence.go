package scheduler

import (
	"fmt"
	"runtime/debug"

	"github.com/containerd/errdefs"
)

// ErrPanic answers a request whose plan panicked.
var ErrPanic = fmt.Errorf("the request could not be worked on, the master's log says why: %w", errdefs.ErrInternal)

// Panic is the value of a panic that was caught, and its stack.
type Panic struct {
	Value any
	Stack []byte
}

// Catch calls f and returns the panic that ended it, nil if none did. What f had changed stays changed.
func Catch(f func()) (p *Panic) {
	defer func() {
		if v := recover(); v != nil {
			p = &Panic{v, debug.Stack()}
		}
	}()
	f()
	return nil
}
