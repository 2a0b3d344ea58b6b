package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// maxClaims bounds a node's sandboxes; far more than the kubelet's pods.
const maxClaims = 4096

// claim says that a sandbox of this node has these addresses. It holds from the sandbox's ADD to its DEL, or until
// another sandbox is given one of the addresses.
type claim struct {
	Container string       `json:"container"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
}

// claims are the node's claims by container, and the file that keeps them over a restart of the process. The file need
// not outlive the node: its sandboxes do not either.
type claims struct {
	file string

	mu   sync.Mutex
	held map[string]claim // guarded by mu
}

// openClaims reads what a process before kept. A file that cannot be read as claims is an error: pods would be without
// rules.
func openClaims(file string) (*claims, error) {
	c := &claims{file: file, held: map[string]claim{}}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	var list []claim
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("claims %s: %w", file, err)
	}
	for _, one := range list {
		c.held[one.Container] = one
	}
	return c, nil
}

// add takes a claim in, and out all others that hold one of its addresses.
func (c *claims) add(one claim) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := maps.Clone(c.held)
	maps.DeleteFunc(next, func(_ string, old claim) bool {
		return slices.ContainsFunc(old.Addresses, func(a netip.Addr) bool { return slices.Contains(one.Addresses, a) })
	})
	next[one.Container] = one
	if len(next) > maxClaims {
		return fmt.Errorf("%d sandboxes on one node are too many", len(next))
	}
	return c.keep(next)
}

// drop takes out the claim of a container, and says whether there was one.
func (c *claims) drop(container string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.held[container]; !ok {
		return false, nil
	}
	next := maps.Clone(c.held)
	delete(next, container)
	return true, c.keep(next)
}

// all returns the claims as they are now; the map is not changed any more.
func (c *claims) all() map[string]claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// keep writes next to the file and then holds it. mu is held.
func (c *claims) keep(next map[string]claim) error {
	list := make([]claim, 0, len(next))
	for _, name := range sortedKeys(next) {
		list = append(list, next[name])
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(c.file), "."+filepath.Base(c.file)+".new")
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(temporary, c.file); err != nil {
		return err
	}
	c.held = next
	return nil
}
