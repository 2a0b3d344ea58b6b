package core

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/expose"
)

// expose gives an owner's instances other further ports than before. What is refused changes nothing.
func (s *State) expose(ev Expose) ([]kernel.EndpointPort, error) {
	ask := expose.Row{Framework: ev.Framework, Owner: ev.Owner, Ports: ev.Ports}
	if s.exposed.Has(&ask) { // nobody is told that nothing changes
		return s.exposed.Given(ev.Framework, ev.Owner), nil
	}
	if len(ev.Ports) > kernel.MaxExposed {
		return nil, fmt.Errorf("%s: %d ports to expose, at most %d may be: %w", ev.Owner, len(ev.Ports), kernel.MaxExposed,
			errdefs.ErrResourceExhausted)
	}
	if err := s.checkPublished(&ask); err != nil {
		return nil, err
	}
	ports, err := s.exposed.Make(ask, s.now)
	if err != nil {
		return nil, err
	}
	s.setExposed(&ask, ports)
	s.dirty(Row{Kind: RowExposed, ID: ask.ID()})
	return s.exposed.Given(ev.Framework, ev.Owner), nil
}

// setExposed puts further ports in place of those before, and has the owner's endpoints sent again.
func (s *State) setExposed(of *expose.Row, ports *expose.Ports) {
	s.exposed.Set(of.Framework, of.Owner, ports, s.now)
	s.specs.Expose(of.Framework, of.Owner, s.exposed.Given(of.Framework, of.Owner))
	for i := range s.all {
		if i.Owner == of.Owner && i.Framework == of.Framework {
			s.endpoints.Moved(i)
			s.change(i)
		}
	}
}

// checkPublished refuses ports of the machines' own addresses that somebody else publishes.
func (s *State) checkPublished(ask *expose.Row) error {
	for _, p := range ask.Ports {
		if !p.Publish {
			continue
		}
		owner := s.exposed.Publisher(ask, p.Service)
		if other := s.specs.Publisher(ask, p.Service); owner == "" || other != "" && other < owner {
			owner = other
		}
		if owner != "" {
			return fmt.Errorf("port %d of the machines is published by %s: %w", p.Service, owner, errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

func (s *State) loadExposed(r Row, raw []byte) error {
	var row expose.Row
	if err := json.Unmarshal(raw, &row); err != nil {
		return err
	}
	if row.ID() != r.ID {
		return fmt.Errorf("holds ports of %q", row.Owner)
	}
	ports, err := s.exposed.Make(row, s.now)
	if err == nil && ports != nil {
		s.setExposed(&row, ports)
	}
	return err
}
