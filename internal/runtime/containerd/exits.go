package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	containerdevents "github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/marinaos/marina/internal/runtime"
)

const (
	barrierTopic   = "/marina/barrier"
	barrierEvery   = 20 * time.Millisecond
	barrierTimeout = 10 * time.Second
	retryEvents    = 200 * time.Millisecond

	// lostCode is reported for a process that ended together with its shim: containerd kills what a shim leaves behind.
	lostCode = 128 + 9
)

// Exits delivers the end of every container, see runtime.Runtime. Whenever the stream of containerd's events breaks,
// all containers are looked at again, so an end is reported late but never missed.
func (r *Runtime) Exits(ctx context.Context) <-chan runtime.Exit {
	out := make(chan runtime.Exit)
	go func() { // ends with ctx; closing out tells the reader
		defer close(out)
		for ctx.Err() == nil {
			if r.Ready(ctx) != nil {
				return
			}
			err := r.followExits(ctx, out)
			if ctx.Err() != nil {
				return
			}
			r.log.Warn("containerd events broke", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(retryEvents):
			}
		}
	}()
	return out
}

// followExits subscribes, reports what had ended before, and follows until the stream breaks.
func (r *Runtime) followExits(ctx context.Context, out chan<- runtime.Exit) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ours := `namespace=="` + r.cfg.namespace() + `",topic=="`
	stream, broke := r.client.EventService().Subscribe(ctx, ours+`/tasks/exit"`, ours+barrierTopic+`"`)
	missed, err := r.barrier(ctx, stream, broke)
	if err != nil {
		return err
	}
	if err := r.reportEnded(ctx, out); err != nil {
		return err
	}
	for _, e := range missed {
		if err := r.reportEvent(ctx, out, e); err != nil {
			return err
		}
	}
	for {
		select {
		case e := <-stream:
			if err := r.reportEvent(ctx, out, e); err != nil {
				return err
			}
		case err := <-broke:
			return err
		}
	}
}

// barrier returns once the subscription is known to be in place, with the events that came meanwhile: a subscription is
// set up some time after the call, and what happens until then is not delivered.
func (r *Runtime) barrier(ctx context.Context, stream <-chan *containerdevents.Envelope, broke <-chan error) (
	early []*containerdevents.Envelope, err error) {
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()
	tick := time.NewTicker(barrierEvery)
	defer tick.Stop()
	for {
		if err := r.client.EventService().Publish(ctx, barrierTopic, &emptypb.Empty{}); err != nil {
			return nil, err
		}
		select {
		case e := <-stream:
			if e.Topic == barrierTopic {
				return early, nil
			}
			early = append(early, e)
		case err := <-broke:
			return nil, err
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *Runtime) reportEnded(ctx context.Context, out chan<- runtime.Exit) error {
	all, err := r.list(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Exit == nil {
			if f.Running || !f.vanished {
				continue
			}
			f.Exit = &runtime.Exit{ID: f.ID, Code: lostCode, Time: time.Now()}
		}
		if err := send(ctx, out, *f.Exit); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runtime) reportEvent(ctx context.Context, out chan<- runtime.Exit, env *containerdevents.Envelope) error {
	if env.Topic == barrierTopic {
		return nil
	}
	v, err := typeurl.UnmarshalAny(env.Event)
	if err != nil {
		return fmt.Errorf("event %s: %w", env.Topic, err)
	}
	e, ok := v.(*events.TaskExit)
	if !ok || e.ID != e.ContainerID {
		return nil // the end of an exec
	}
	labels, err := r.labels(ctx, e.ContainerID)
	if errdefs.IsNotFound(err) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	return send(ctx, out, *r.exit(labels, e.ExitStatus, e.ExitedAt.AsTime()))
}

func send(ctx context.Context, out chan<- runtime.Exit, e runtime.Exit) error {
	select {
	case out <- e:
		return nil
	case <-ctx.Done():
		return errors.New("reader is gone")
	}
}
