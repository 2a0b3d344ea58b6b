package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// registryClient asks public registries. It gives up early on one that cannot be reached: a task waits for it.
var registryClient = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	TLSHandshakeTimeout:   5 * time.Second,
	ResponseHeaderTimeout: 30 * time.Second,
	IdleConnTimeout:       30 * time.Second,
	ForceAttemptHTTP2:     true,
}}

// Image is an image present on this machine.
type Image struct {
	Ref    string // complete: "docker.io/library/nginx:1.27"
	Digest string
	Bytes  int64
}

// normal makes a reference complete, as people abbreviate it: "nginx" is docker.io/library/nginx:latest.
func normal(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: %v: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	return named.String(), nil
}

// image returns a present image.
func (r *Runtime) image(ctx context.Context, ref string) (containerd.Image, error) {
	name, err := normal(ref)
	if err != nil {
		return nil, err
	}
	i, err := r.client.GetImage(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return i, nil
}

// Pull makes an image present and unpacked, see runtime.Runtime. Calls for one image share one download, which goes on
// when one of them gives up. An image that neither source has is errdefs.ErrNotFound; one that may exist where nobody
// could be asked is errdefs.ErrUnavailable.
func (r *Runtime) Pull(ctx context.Context, ref string, fresh bool) error {
	name, err := normal(ref)
	if err != nil {
		return err
	}
	if err := r.Ready(ctx); err != nil {
		return err
	}
	key := name
	if fresh {
		key += " fresh"
	}
	done := r.pulls.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTimeout)
		defer cancel()
		return nil, r.pull(ctx, name, fresh)
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

func (r *Runtime) pull(ctx context.Context, name string, fresh bool) error {
	if !fresh {
		i, err := r.client.GetImage(ctx, name)
		if err == nil {
			return unpacked(ctx, i)
		}
		if !errdefs.IsNotFound(err) {
			return err
		}
	}
	from, err := r.source(ctx, name)
	if err != nil {
		return err
	}
	_, err = r.client.Pull(ctx, name, containerd.WithResolver(from), containerd.WithPullUnpack,
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

// source is where an image can be had: the datacenter's store, else the registry its name says.
func (r *Runtime) source(ctx context.Context, name string) (remotes.Resolver, error) {
	registry, _, _ := strings.Cut(name, "/")
	var tried []error
	if r.cfg.Store != nil {
		from := docker.NewResolver(docker.ResolverOptions{Hosts: r.cfg.Store.hosts})
		_, _, err := from.Resolve(ctx, name)
		if err == nil {
			return from, nil
		}
		tried = append(tried, fmt.Errorf("the datacenter's image store: %w", err))
	}
	from := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithClient(registryClient), docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(registryClient))),
		docker.WithPlainHTTP(docker.MatchLocalhost))})
	_, _, err := from.Resolve(ctx, name)
	if err == nil {
		return from, nil
	}
	return nil, notHad(registry, append(tried, fmt.Errorf("%s: %w", registry, err)))
}

// notHad sums up why no source has an image.
func notHad(registry string, tried []error) error {
	const todo = "load it with `marina image load FILE`"
	missing := func(err error) bool { return errdefs.IsNotFound(err) || errors.Is(err, docker.ErrInvalidAuthorization) }
	if !slices.ContainsFunc(tried, func(err error) bool { return !missing(err) }) {
		return fmt.Errorf("neither the datacenter's image store nor %s has it; %s: %w", registry, todo, errdefs.ErrNotFound)
	}
	texts := make([]string, len(tried))
	for i, err := range tried {
		texts[i] = err.Error()
	}
	return fmt.Errorf("it is not on this machine and could not be had (%s); %s: %w", strings.Join(texts, "; "), todo, errdefs.ErrUnavailable)
}

// hosts makes the store a mirror of every registry: it is told which one is meant by the query ns=REGISTRY.
func (s *Store) hosts(string) ([]docker.RegistryHost, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	client := s.Client
	if client == nil {
		client = http.DefaultClient
	}
	return []docker.RegistryHost{{Client: client, Host: u.Host, Scheme: u.Scheme,
		Path: strings.TrimSuffix(u.Path, "/") + "/v2", Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve}}, nil
}

// Import reads an OCI or Docker archive and makes its images present and unpacked. It returns their references; an
// archive that names no image is errdefs.ErrInvalidArgument.
func (r *Runtime) Import(ctx context.Context, archive io.Reader) ([]string, error) {
	if err := r.Ready(ctx); err != nil {
		return nil, err
	}
	imgs, err := r.client.Import(ctx, archive)
	if err != nil {
		return nil, fmt.Errorf("image archive: %w", err)
	}
	var refs []string
	for _, i := range imgs {
		if err := unpacked(ctx, containerd.NewImage(r.client, i)); err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name, err)
		}
		refs = append(refs, i.Name)
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("image archive: it names no image: %w", errdefs.ErrInvalidArgument)
	}
	return refs, nil
}

// Images lists the images present on this machine.
func (r *Runtime) Images(ctx context.Context) ([]Image, error) {
	if err := r.Ready(ctx); err != nil {
		return nil, err
	}
	imgs, err := r.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	var out []Image
	for _, i := range imgs {
		size, err := i.Size(ctx)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name(), err)
		}
		out = append(out, Image{Ref: i.Name(), Digest: i.Target().Digest.String(), Bytes: size})
	}
	return out, nil
}

// removeImages empties a containerd that is somebody else's of what we put there.
func (r *Runtime) removeImages(ctx context.Context) error {
	imgs, err := r.client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	var errs []error
	for _, i := range imgs {
		errs = append(errs, r.client.ImageService().Delete(ctx, i.Name))
	}
	return errors.Join(errs...)
}
