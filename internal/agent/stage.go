package agent

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
)

// stage is one thing that an instance needs before its processes are started: an image, a mount, a network. Stages are
// prepared in the order of their list and undone in the reverse of it. What they make outlives the agent, and an agent
// can be killed within any of them, so the next agent may call either at any time: both find what they make there, in
// part, or not at all, and both go by the instance's record alone. An instance that ends is undone by all stages, also
// by those that were never prepared.
type stage interface {
	// Prepare makes it be there. What later stages need of it is left in g.given. An error ends the instance: a *failure
	// says for which task, and an *ending how.
	Prepare(ctx context.Context, g *instance) error

	// Undo takes away whatever Prepare may have made. It is called again until it returns nil.
	Undo(ctx context.Context, g *instance) error
}

// kept is the Undo of a stage whose result stays, or takes nothing to keep.
type kept struct{}

func (kept) Undo(context.Context, *instance) error { return nil }

// fetching lists what can be done before an instance counts as starting: it costs others nothing and may take long.
func fetching() []stage { return []stage{admission{}, secrets{}, images{}} }

// making lists what is made for an instance once its intent is on disk. To give instances something new, add a stage.
func making() []stage { return []stage{volumes{}, files{}, connection{}, sandboxes{}, containers{}} }

// given holds the results of stages, for those after them.
type given struct {
	secrets map[string]kernel.Secret // by reference; until they are in place
	volumes map[string]string        // where the reservation's are mounted, by name
	netns   string                   // path of the network namespace
	places  []place                  // by task
}

// failure is an error of one task, or with a reason that its kind does not tell.
type failure struct {
	task   int
	reason kernel.Reason // none: what follows from the kind of error
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// prepare prepares stages in their order, and answers with the end of the instance if one fails.
func (g *instance) prepare(ctx context.Context, stages []stage) *ending {
	for _, s := range stages {
		if err := g.a.measured.Stage(s, func() error { return s.Prepare(ctx, g) }); err != nil {
			return failed(ctx, err)
		}
	}
	return nil
}

// undo undoes all stages in reverse. One that fails keeps none of the others from being undone.
func (g *instance) undo(ctx context.Context) error {
	var errs []error
	for _, list := range [][]stage{g.a.making, g.a.fetching} {
		for i := len(list) - 1; i >= 0; i-- {
			errs = append(errs, list[i].Undo(ctx, g))
		}
	}
	return errors.Join(errs...)
}

// failed is the end of an instance that could not be started because of err; all that is reported is the first such
// cause, and an instance that was told to stop meanwhile just stops.
func failed(ctx context.Context, err error) *ending {
	for _, err := range []error{err, context.Cause(ctx)} {
		if e, ok := errors.AsType[*ending](err); ok {
			return e
		}
	}
	e := &ending{State: kernel.Failed, Reason: kernel.ReasonRuntime, Why: err.Error(), Task: all}
	switch {
	case errdefs.IsInvalidArgument(err):
		e.State = kernel.Error
	case errdefs.IsResourceExhausted(err):
		e.Reason = kernel.ReasonDisk
	}
	if f, ok := errors.AsType[*failure](err); ok {
		e.Task = f.task
		if f.reason != kernel.ReasonNone {
			e.Reason = f.reason
		}
	}
	return e
}
