package image

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

func TestReferencesAreCompletedAndOthersRefused(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                    "docker.io/library/nginx:latest",
		"nginx:1.27":               "docker.io/library/nginx:1.27",
		"team/app":                 "docker.io/team/app:latest",
		"localhost:5000/app:1":     "localhost:5000/app:1",
		"registry.example.com/a/b": "registry.example.com/a/b:latest",
	} {
		if got, err := normal(ref); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", ref, got, err, want)
		}
	}
	for _, ref := range []string{
		"", "UPPER", "a b", "../x", "x:", "x@sha256:1", "https://registry/x", strings.Repeat("x", 300),
	} {
		if got, err := normal(ref); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %s, %v, want an invalid argument", ref, got, err)
		}
	}
}

func TestWhoHasNoImageAndWhoCouldNotBeAskedAreToldApart(t *testing.T) {
	missing, down := errdefs.ErrNotFound, errors.New("connection refused")
	for _, tc := range []struct {
		tried []error
		is    func(error) bool
		says  []string
	}{
		{[]error{missing}, errdefs.IsNotFound, []string{"registry.example.com"}},
		{[]error{missing, missing}, errdefs.IsNotFound, []string{"registry.example.com"}},
		{[]error{missing, docker.ErrInvalidAuthorization}, errdefs.IsNotFound, nil},
		{[]error{missing, down}, errdefs.IsUnavailable, []string{"connection refused", "not found"}},
		{[]error{down, missing}, errdefs.IsUnavailable, []string{"connection refused"}},
		{[]error{down}, errdefs.IsUnavailable, []string{"connection refused"}},
	} {
		err := notHad("registry.example.com", tc.tried)
		if !tc.is(err) {
			t.Errorf("%v: got %v", tc.tried, err)
		}
		for _, want := range append(tc.says, "marina image load") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q lacks %q", tc.tried, err, want)
			}
		}
	}
}

// The store is asked for every registry's images, told which one is meant, before that registry.
func TestTheStoreIsAskedFirst(t *testing.T) {
	var asked []string
	status := http.StatusNotFound
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+"?"+r.URL.RawQuery)
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		w.Header().Set("Content-Length", "2")
		w.WriteHeader(status)
	}))
	t.Cleanup(store.Close)
	m := New(nil, nil, &Store{URL: store.URL + "/images/"})
	ctx := context.Background()
	if _, err := m.source(ctx, "127.0.0.1:1/team/app:1"); !errdefs.IsUnavailable(err) {
		t.Errorf("the store lacks it and the registry is away: got %v, want unavailable", err)
	}
	if len(asked) == 0 || asked[0] != "/images/v2/team/app/manifests/1?ns=127.0.0.1%3A1" {
		t.Errorf("the store was asked for %q", asked)
	}
	status = http.StatusOK
	from, err := m.source(ctx, "127.0.0.1:1/team/app:1")
	if err != nil {
		t.Fatalf("the store has it: %v", err)
	}
	if _, desc, err := from.Resolve(ctx, "127.0.0.1:1/team/app:1"); err != nil || desc.Size != 2 {
		t.Errorf("got %+v, %v, want what the store has", desc, err)
	}
}

func TestCallsForAnImageWaitForContainerd(t *testing.T) {
	down := errors.New("containerd does not answer")
	m := New(nil, func(context.Context) error { return down }, nil)
	if err := m.Pull(t.Context(), "nginx", false); !errors.Is(err, down) {
		t.Errorf("got %v, want %v", err, down)
	}
	if err := m.Pull(t.Context(), "NO", false); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no reference: got %v, want an invalid argument at once", err)
	}
}
