package steward

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/marinaos/marina/internal/kubernetes/wire"
)

const (
	maxNodes     = 5000 // Kubernetes' own limit
	maxBalancers = 1000
)

// What the datacenter decided; PUT /v1/desired.
type (
	Desired  = wire.Desired
	Balancer = wire.Balancer
)

// checkDesired refuses what cannot be.
func checkDesired(d *Desired) error {
	if len(d.Nodes) > maxNodes {
		return fmt.Errorf("nodes: %d, at most %d", len(d.Nodes), maxNodes)
	}
	if slices.Contains(d.Nodes, "") {
		return errors.New("nodes: an empty name")
	}
	if len(d.LoadBalancers) > maxBalancers {
		return fmt.Errorf("loadBalancers: %d, at most %d", len(d.LoadBalancers), maxBalancers)
	}
	for _, b := range d.LoadBalancers {
		if b.Namespace == "" || b.Name == "" {
			return errors.New("loadBalancers: namespace and name are needed")
		}
		for _, a := range b.Ingress {
			if !a.IsValid() {
				return fmt.Errorf("loadBalancers: %s/%s: an empty address", b.Namespace, b.Name)
			}
		}
	}
	return nil
}

// state outlives the process: it is read at the start, and durable after each change.
type state struct {
	path string

	mu sync.Mutex // guards what follows, and the file
	at struct {
		Desired Desired `json:"desired"`
		Probed  bool    `json:"probed"`
	}
}

func readState(path string) (*state, error) {
	s := &state{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s.at); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// desired returns what must not be changed.
func (s *state) desired() Desired {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.Desired
}

func (s *state) probed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.Probed
}

// nodeless reports whether the cluster is to have no nodes.
func (s *state) nodeless() bool {
	nodes := s.desired().Nodes
	return nodes != nil && len(nodes) == 0
}

// setDesired returns when d is durable.
func (s *state) setDesired(d Desired) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.at.Desired
	s.at.Desired = d
	if err := s.write(); err != nil {
		s.at.Desired = old
		return err
	}
	return nil
}

func (s *state) setProbed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.Probed = true
	return s.write()
}

// write replaces the file: whoever reads it finds the old or the new.
func (s *state) write() error {
	b, err := json.Marshal(&s.at)
	if err != nil {
		return err
	}
	tmp, err := os.OpenFile(s.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), s.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
