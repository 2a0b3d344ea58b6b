package kubernetes

import (
	"errors"

	"github.com/marinaos/marina/internal/scheduler"
)

// over is an error after which this leadership's work is over: it was lost, or memory and store may differ. A read
// that fails is none, nor is what the kernel or the store refuse of one cluster.
type over struct{ error }

func (o over) Unwrap() error { return o.error }

func ends(err error) bool {
	_, is := errors.AsType[over](err)
	return is
}

// asked passes on the kernel's answer to a change, and marks one that means that this process does not lead.
func asked(err error) error {
	if scheduler.Ends(err) {
		return over{err}
	}
	return err
}
