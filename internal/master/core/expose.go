package core

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/vip"
)

// exposed is further ports of all instances of an owner.
type exposed struct {
	framework, owner string
	asked            []kernel.Port
	ports            []kernel.EndpointPort // one for each protocol
	vips             []*vip.VIP
}

type exposedRow struct {
	Framework string        `json:"framework"`
	Owner     string        `json:"owner"`
	Ports     []kernel.Port `json:"ports"`
}

// expose gives an owner's instances other further ports than before. What is refused changes nothing.
func (s *State) expose(ev Expose) ([]kernel.EndpointPort, error) {
	id := reservationID(ev.Framework, ev.Owner)
	old := s.exposed[id]
	switch { // nothing changes, and nobody is told so
	case old == nil && len(ev.Ports) == 0:
		return nil, nil
	case old != nil && jsonEqual(old.asked, ev.Ports):
		return old.ports, nil
	}
	if len(ev.Ports) > kernel.MaxExposed {
		return nil, fmt.Errorf("%s: %d ports to expose, at most %d may be: %w", ev.Owner, len(ev.Ports), kernel.MaxExposed, errdefs.ErrResourceExhausted)
	}
	if err := s.checkPublished(id, ev.Ports); err != nil {
		return nil, err
	}
	now, err := s.newExposed(ev.Framework, ev.Owner, ev.Ports)
	if err != nil {
		return nil, err
	}
	s.setExposed(id, now)
	s.dirty(Row{Kind: RowExposed, ID: id})
	if now == nil {
		return nil, nil
	}
	return now.ports, nil
}

// newExposed makes further ports; named VIPs get addresses. No ports are nil.
func (s *State) newExposed(framework, owner string, ports []kernel.Port) (*exposed, error) {
	if len(ports) == 0 {
		return nil, nil
	}
	x := &exposed{framework: framework, owner: owner, asked: ports}
	for _, p := range ports {
		e := kernel.EndpointPort{Name: p.Name, Container: p.Container}
		if p.Publish {
			e.Publish = p.Service
		}
		for _, ask := range p.VIPs {
			if ask.Name == "" {
				s.vips.Release(x.vips, s.now)
				return nil, fmt.Errorf("VIP %s of %s: a port that is exposed has named VIPs only: %w", ask.Addr, owner, errdefs.ErrInvalidArgument)
			}
			v, err := s.vips.Hold(ask.Name + "." + framework)
			if err != nil {
				s.vips.Release(x.vips, s.now)
				return nil, err
			}
			x.vips = append(x.vips, v)
			e.VIPs = append(e.VIPs, kernel.EndpointVIP{Name: v.Name, Addr: v.Addr, Port: ask.Port})
		}
		for protocol := range strings.SplitSeq(p.Protocol, ",") {
			e.Protocol = protocol
			x.ports = append(x.ports, e)
		}
	}
	return x, nil
}

// setExposed puts further ports in place of those before, and has the owner's endpoints sent again.
func (s *State) setExposed(id string, now *exposed) {
	old := s.exposed[id]
	if now != nil {
		s.exposed[id] = now
	} else {
		delete(s.exposed, id)
	}
	for i := range s.all {
		if reservationID(i.Framework, i.Owner) == id {
			i.spec.more = now
			s.endpoints.moved(i)
			s.change(i)
		}
	}
	for _, sp := range s.specs { // those that wait; the order does not show
		if reservationID(sp.Framework, sp.Owner) == id {
			sp.more = now
		}
	}
	if old != nil {
		s.vips.Release(old.vips, s.now)
	}
}

// checkPublished refuses ports of the machines' own addresses that somebody else publishes.
func (s *State) checkPublished(id string, ports []kernel.Port) error {
	taken := func(p kernel.Port, by kernel.Port) bool { return by.Publish && p.Service == by.Service }
	for _, p := range ports {
		if !p.Publish {
			continue
		}
		same := func(by kernel.Port) bool { return taken(p, by) }
		owner := ""
		for other, x := range s.exposed {
			if other != id && slices.ContainsFunc(x.asked, same) && (owner == "" || x.owner < owner) {
				owner = x.owner
			}
		}
		for _, sp := range s.specs {
			if reservationID(sp.Framework, sp.Owner) != id && slices.ContainsFunc(sp.Ports(), same) && (owner == "" || sp.Owner < owner) {
				owner = sp.Owner
			}
		}
		if owner != "" {
			return fmt.Errorf("port %d of the machines is published by %s: %w", p.Service, owner, errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

func (s *State) loadExposed(r Row, raw []byte) error {
	var row exposedRow
	if err := json.Unmarshal(raw, &row); err != nil {
		return err
	}
	if reservationID(row.Framework, row.Owner) != r.ID {
		return fmt.Errorf("holds ports of %q", row.Owner)
	}
	x, err := s.newExposed(row.Framework, row.Owner, row.Ports)
	if err == nil && x != nil {
		s.setExposed(r.ID, x)
	}
	return err
}

func jsonEqual(a, b []kernel.Port) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}
