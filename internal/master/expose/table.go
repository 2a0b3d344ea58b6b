package expose

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/vip"
)

// Ports are further ports of all instances of an owner.
type Ports struct {
	Row
	Given []kernel.EndpointPort // one for each protocol
	vips  []*vip.VIP
}

// Row is the stored value.
type Row struct {
	Framework string        `json:"framework"`
	Owner     string        `json:"owner"`
	Ports     []kernel.Port `json:"ports"`
}

// ID names an owner's ports in rows. Frameworks have no slash in their names.
func (r *Row) ID() string { return id(r.Framework, r.Owner) }

func id(framework, owner string) string { return framework + "/" + owner }

// Table keeps the ports of each owner that has some.
type Table struct {
	vips *vip.Table
	byID map[string]*Ports
}

// New returns an empty table, which holds VIPs in another.
func New(vips *vip.Table) *Table { return &Table{vips: vips, byID: map[string]*Ports{}} }

// Given lists the ports that an owner was given.
func (t *Table) Given(framework, owner string) []kernel.EndpointPort {
	if x := t.byID[id(framework, owner)]; x != nil {
		return x.Given
	}
	return nil
}

// Row is the value of a row, and whether there is one.
func (t *Table) Row(id string) (Row, bool) {
	if x := t.byID[id]; x != nil {
		return x.Row, true
	}
	return Row{}, false
}

// Has reports whether an owner has exactly the ports that are asked for.
func (t *Table) Has(ask *Row) bool {
	x := t.byID[ask.ID()]
	if x == nil {
		return len(ask.Ports) == 0
	}
	return jsonEqual(x.Ports, ask.Ports)
}

// Publisher is the owner, first by name and other than the one who asks, that publishes a port of the machines' own
// addresses; empty if none does.
func (t *Table) Publisher(ask *Row, port uint16) (owner string) {
	for other, x := range t.byID {
		taken := func(p kernel.Port) bool { return p.Publish && p.Service == port }
		if other != ask.ID() && slices.ContainsFunc(x.Ports, taken) && (owner == "" || x.Owner < owner) {
			owner = x.Owner
		}
	}
	return owner
}

// Make makes what is asked for and holds its VIPs, for Set to put into place; nil for no ports. An error holds nothing.
func (t *Table) Make(ask Row, now time.Time) (*Ports, error) {
	if len(ask.Ports) == 0 {
		return nil, nil
	}
	x := &Ports{Row: ask}
	for _, p := range ask.Ports {
		e := kernel.EndpointPort{Name: p.Name, Container: p.Container}
		if p.Publish {
			e.Publish = p.Service
		}
		for _, v := range p.VIPs {
			held, err := t.hold(&ask, v)
			if err != nil {
				t.vips.Release(x.vips, now)
				return nil, err
			}
			x.vips = append(x.vips, held)
			e.VIPs = append(e.VIPs, kernel.EndpointVIP{Name: held.Name, Addr: held.Addr, Port: v.Port})
		}
		for protocol := range strings.SplitSeq(p.Protocol, ",") {
			e.Protocol = protocol
			x.Given = append(x.Given, e)
		}
	}
	return x, nil
}

func (t *Table) hold(ask *Row, v kernel.VIP) (*vip.VIP, error) {
	if v.Name == "" {
		return nil, fmt.Errorf("VIP %s of %s: a port that is exposed has named VIPs only: %w", v.Addr, ask.Owner,
			errdefs.ErrInvalidArgument)
	}
	return t.vips.Hold(v.Name + "." + ask.Framework)
}

// Set puts ports, nil for none, in place of those that an owner had, and releases the VIPs of those.
func (t *Table) Set(framework, owner string, to *Ports, now time.Time) {
	id := id(framework, owner)
	old := t.byID[id]
	if to != nil {
		t.byID[id] = to
	} else {
		delete(t.byID, id)
	}
	if old != nil {
		t.vips.Release(old.vips, now)
	}
}

func jsonEqual(a, b []kernel.Port) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}
