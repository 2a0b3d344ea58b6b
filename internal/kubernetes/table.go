package kubernetes

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// table is all clusters by name.
type table map[string]*cluster

// firstVNI begins the numbers of clusters' own networks.
const firstVNI = 4096

// freeVNI is the lowest number that no cluster's network has. While a cluster's number could not be read it is one of
// those beyond what as many clusters as there may be ever had.
func (t table) freeVNI() int {
	taken, n := map[int]bool{}, firstVNI
	for _, c := range t {
		if taken[c.VNI] = true; c.VNI == 0 {
			n = firstVNI + MaxClusters
		}
	}
	for taken[n] {
		n++
	}
	return n
}

func notFound(name string) error {
	return fmt.Errorf("cluster %.60q does not exist: `marina cluster list` tells those that do: %w", name,
		errdefs.ErrNotFound)
}

// living finds a cluster that is not being deleted. The owner goroutine calls it, or whoever holds the lock.
func (t table) living(name string) (*cluster, error) {
	c := t[name]
	if c == nil {
		return nil, notFound(name)
	}
	if !c.Deleted.IsZero() {
		return nil, fmt.Errorf("cluster %s is being deleted: %w", name, errdefs.ErrFailedPrecondition)
	}
	if c.parked != nil {
		return nil, fmt.Errorf("cluster %s is parked: %s; %s: %w", name, c.parked.Problem, c.parked.Do,
			errdefs.ErrFailedPrecondition)
	}
	return c, nil
}

// published is the machines' ports that load balancers have.
func (t table) published() map[uint16]bool {
	out := map[uint16]bool{}
	for _, c := range t {
		for _, p := range c.Published {
			out[p] = true
		}
	}
	return out
}
