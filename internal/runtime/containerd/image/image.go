package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"golang.org/x/sync/singleflight"
)

const pullTimeout = 15 * time.Minute // one image

// Images are those of containerd's namespace.
type Images struct {
	client *containerd.Client
	ready  func(context.Context) error // waits until containerd answers
	store  *Store                      // nil: only registries are asked
	pulls  singleflight.Group          // by reference
}

// New returns the images of the client's namespace; ready waits until containerd answers. Without a store only
// registries are asked.
func New(client *containerd.Client, ready func(context.Context) error, store *Store) *Images {
	return &Images{client: client, ready: ready, store: store}
}

// normal makes a reference complete, as people abbreviate it: "nginx" is docker.io/library/nginx:latest.
func normal(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: %v: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	return named.String(), nil
}

// Get returns a present image.
func (m *Images) Get(ctx context.Context, ref string) (containerd.Image, error) {
	name, err := normal(ref)
	if err != nil {
		return nil, err
	}
	i, err := m.client.GetImage(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return i, nil
}

// Pull makes an image present and unpacked, see runtime.Runtime. Calls for one image share one download, which goes on
// when one of them gives up. An image that neither source has is errdefs.ErrNotFound; one that may exist where nobody
// could be asked is errdefs.ErrUnavailable.
func (m *Images) Pull(ctx context.Context, ref string, fresh bool) error {
	name, err := normal(ref)
	if err != nil {
		return err
	}
	if err := m.ready(ctx); err != nil {
		return err
	}
	key := name
	if fresh {
		key += " fresh"
	}
	done := m.pulls.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
		defer cancel()
		return nil, m.pull(ctx, name, fresh)
	})
	select {
	case res := <-done:
		if res.Err != nil {
			return fmt.Errorf("image %s: %w", ref, res.Err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("image %s: %w", ref, ctx.Err())
	}
}

func (m *Images) pull(ctx context.Context, name string, fresh bool) error {
	if !fresh {
		i, err := m.client.GetImage(ctx, name)
		if err == nil {
			return unpacked(ctx, i)
		}
		if !errdefs.IsNotFound(err) {
			return err
		}
	}
	from, err := m.source(ctx, name)
	if err != nil {
		return err
	}
	_, err = m.client.Pull(ctx, name, containerd.WithResolver(from), containerd.WithPullUnpack,
		containerd.WithPullSnapshotter(defaults.DefaultSnapshotter))
	return err
}

// unpacked makes sure that an image's layers are snapshots.
func unpacked(ctx context.Context, i containerd.Image) error {
	ok, err := i.IsUnpacked(ctx, defaults.DefaultSnapshotter)
	if err != nil || ok {
		return err
	}
	return i.Unpack(ctx, defaults.DefaultSnapshotter)
}

// RemoveAll empties the namespace in a containerd that is somebody else's.
func (m *Images) RemoveAll(ctx context.Context) error {
	imgs, err := m.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	var errs []error
	for _, i := range imgs {
		errs = append(errs, m.client.ImageService().Delete(ctx, i.Name))
	}
	return errors.Join(errs...)
}
