package core

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/kubernetes/definition"
)

// Definition describes a cluster as somebody wants it, see there.
type Definition = definition.Cluster

// MaxClusters bounds how many clusters there are.
const MaxClusters = 1000

// Row is a cluster as the store has it.
type Row struct {
	Definition
	ID      string    `json:"id"`  // drawn when it was created
	VNI     int       `json:"vni"` // of its nodes' own network, unique among clusters
	Created time.Time `json:"created"`
	ReadyAt time.Time `json:"readyAt,omitzero"`
	Deleted time.Time `json:"deleted,omitzero"` // somebody asked for its end then
	// Published is the machines' ports of its load balancers, by namespace/name/protocol/port.
	Published map[string]uint16 `json:"published,omitempty"`
	Images    []string          `json:"images,omitempty"` // loaded into it by name
	// SharedIDs: its nodes have no user namespaces and run with their machines' own user ids, since there was no machine
	// with user namespaces when it was created.
	SharedIDs bool `json:"sharedIDs,omitempty"`
}

// On completes a new cluster's row by what follows from the machines there are.
func (r Row) On(agents []kernel.AgentView) Row {
	have := func(a kernel.AgentView) bool { return a.Attributes[kernel.UserNamespaces] != "no" }
	r.SharedIDs = len(agents) > 0 && !slices.ContainsFunc(agents, have)
	if r.Privileged == nil {
		r.Privileged = new(!r.SharedIDs)
	}
	return r
}

// wants reports whether a member should be.
func (r *Row) wants(member string) bool {
	n, isNode := nodeNumber(member)
	return r.Deleted.IsZero() && (!isNode || n <= *r.Nodes.Count)
}

// Usable reports why nothing can be decided from a row that is stored under a name, as an errdefs.ErrDataLoss.
func (r *Row) Usable(name string) error {
	switch {
	case r.Name != name:
		return fmt.Errorf("it is of %.60q: %w", r.Name, errdefs.ErrDataLoss)
	case r.ID == "" || r.Nodes.Count == nil || r.Encryption == nil || r.Privileged == nil:
		return fmt.Errorf("a part of it is missing: %w", errdefs.ErrDataLoss)
	case !r.Deleted.IsZero():
		return nil
	}
	for _, cidr := range []string{r.PodCIDR, r.ServiceCIDR} {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			return fmt.Errorf("range %.40q: %w", cidr, errdefs.ErrDataLoss)
		}
	}
	return nil
}
