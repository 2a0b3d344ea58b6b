package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// Store is an image store that speaks the registry protocol and is asked first for every image.
type Store struct {
	URL    string       // "https://10.0.0.1:8443"; the protocol's /v2/ comes below it
	Client *http.Client // with the agent's certificate; default http.DefaultClient
}

// registryClient asks public registries. It gives up early on one that cannot be reached: a task waits for it.
var registryClient = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	TLSHandshakeTimeout:   5 * time.Second,
	ResponseHeaderTimeout: 30 * time.Second,
	IdleConnTimeout:       30 * time.Second,
	ForceAttemptHTTP2:     true,
}}

// source finds who has an image: the datacenter's store, else the registry its name says.
func (m *Images) source(ctx context.Context, name string) (remotes.Resolver, error) {
	registry, _, _ := strings.Cut(name, "/")
	var tried []error
	if m.store != nil {
		from := docker.NewResolver(docker.ResolverOptions{Hosts: m.store.hosts})
		_, _, err := from.Resolve(ctx, name)
		if err == nil {
			return from, nil
		}
		tried = append(tried, fmt.Errorf("the datacenter's image store: %w", err))
	}
	from := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithClient(registryClient),
		docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(registryClient))),
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
		return fmt.Errorf("neither the datacenter's image store nor %s has it; %s: %w",
			registry, todo, errdefs.ErrNotFound)
	}
	texts := make([]string, len(tried))
	for i, err := range tried {
		texts[i] = err.Error()
	}
	return fmt.Errorf("it is not on this machine and could not be had (%s); %s: %w",
		strings.Join(texts, "; "), todo, errdefs.ErrUnavailable)
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
		Path:         strings.TrimSuffix(u.Path, "/") + "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve}}, nil
}
