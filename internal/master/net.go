package master

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/access"
	"github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/subnet"
	"github.com/marinaos/marina/internal/master/vip"
)

// net answers /net/v1: the virtual addresses.
func (m *api) net(w http.ResponseWriter, r *http.Request, rest string) error {
	if rest == "pool" {
		return m.poolHandler(w, r)
	}
	if err := allow(w, r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if rest != "vips" {
		return fmt.Errorf("path /net/v1/%s: %w", rest, errdefs.ErrNotFound)
	}
	var out []*vip.View
	if err := m.look(r.Context(), func(s *core.State) { out = s.Addresses() }); err != nil {
		return err
	}
	out = slices.DeleteFunc(out, func(v *vip.View) bool {
		return m.may(r, access.Read, access.Networks.Of(v.Owner)) != nil
	})
	return writeJSON(w, out)
}

// poolHandler answers /net/v1/pool.
func (m *api) poolHandler(w http.ResponseWriter, r *http.Request) error {
	if err := m.may(r, access.Of(r.Method), access.Networks.Of("pool")); err != nil {
		return err
	}
	if r.Method == http.MethodPut {
		var body struct {
			Pool netip.Prefix `json:"pool"`
		}
		if err := readBody(w, r, &body); err != nil {
			return fmt.Errorf("pool: the body is not what is expected, {\"pool\": \"10.128.0.0/12\"}: %w",
				errdefs.ErrInvalidArgument)
		}
		if err := m.SetPool(r.Context(), body.Pool); err != nil {
			return err
		}
	} else if err := allow(w, r, http.MethodGet, http.MethodHead, http.MethodPut); err != nil {
		return err
	}
	var out subnet.Usage
	if err := m.look(r.Context(), func(s *core.State) { out = s.Pool() }); err != nil {
		return err
	}
	return writeJSON(w, out)
}
