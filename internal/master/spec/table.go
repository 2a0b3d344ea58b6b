package spec

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/allocator"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/expose"
	"github.com/marinaos/marina/internal/master/vip"
	"github.com/marinaos/marina/internal/placement"
	"github.com/marinaos/marina/internal/store"
)

// maxFramework is the most bytes of a framework's name.
const maxFramework = 128

// Spec is a kernel.Spec with what follows from it.
type Spec struct {
	kernel.Spec
	Request *placement.Request
	Need    kernel.Resources        // of an instance that was not resized
	Origin  *kernel.Origin          // shared by the records of its instances
	Serves  [][]kernel.EndpointPort // by task, but for host ports
	More    []kernel.EndpointPort   // further ports of its owner
	Size    int                     // bytes encoded

	vips   []*vip.VIP
	uses   int // instances and waiting instances
	placed int // instances
	stored bool
}

// Fills is the role whose reserved parts instances of the spec use, empty if none.
func (sp *Spec) Fills() string {
	if sp.Reserved == kernel.ReservedNone {
		return ""
	}
	return sp.Role
}

// Uses counts the instances of the spec, and those that wait.
func (sp *Spec) Uses() int { return sp.uses }

// Table keeps the specs by id.
type Table struct {
	pool    *placement.Pool
	vips    *vip.Table
	exposed *expose.Table
	changed func(kernel.SpecID)
	byID    map[kernel.SpecID]*Spec
}

// New returns an empty table over what specs take up elsewhere. changed is told each spec whose row changed.
func New(pool *placement.Pool, vips *vip.Table, exposed *expose.Table, changed func(kernel.SpecID)) *Table {
	return &Table{pool: pool, vips: vips, exposed: exposed, changed: changed, byID: map[kernel.SpecID]*Spec{}}
}

// Get is the spec of an id, nil if nothing uses one.
func (t *Table) Get(id kernel.SpecID) *Spec { return t.byID[id] }

// All yields the specs in no order.
func (t *Table) All(yield func(*Spec) bool) { maps.Values(t.byID)(yield) }

// Stored reports whether a spec has a row.
func (t *Table) Stored(id kernel.SpecID) (kernel.Spec, bool) {
	if sp := t.byID[id]; sp != nil && sp.stored {
		return sp.Spec, true
	}
	return kernel.Spec{}, false
}

// Placed counts the instances of a framework, of all if it is empty.
func (t *Table) Placed(framework string) (n int) {
	for _, sp := range t.byID {
		if framework == "" || sp.Framework == framework {
			n += sp.placed
		}
	}
	return n
}

// Publisher is the owner, first by name and other than the one who asks, that publishes a port of the machines' own
// addresses; empty if none does.
func (t *Table) Publisher(ask *expose.Row, port uint16) (owner string) {
	for _, sp := range t.byID {
		taken := func(p kernel.Port) bool { return p.Publish && p.Service == port }
		other := sp.Owner != ask.Owner || sp.Framework != ask.Framework
		if other && slices.ContainsFunc(sp.Ports(), taken) && (owner == "" || sp.Owner < owner) {
			owner = sp.Owner
		}
	}
	return owner
}

// Expose notes an owner's further ports with its specs.
func (t *Table) Expose(framework, owner string, more []kernel.EndpointPort) {
	for _, sp := range t.byID {
		if sp.Owner == owner && sp.Framework == framework {
			sp.More = more
		}
	}
}

// Add takes up a spec, with nothing made from it yet: Unused frees it when that stays so. A named VIP that has no
// address gets one.
func (t *Table) Add(k kernel.Spec, now time.Time) (*Spec, error) {
	if sp := t.byID[k.ID]; sp != nil {
		return sp, nil
	}
	if err := allocator.ValidateRole(k.Role); err != nil {
		return nil, fmt.Errorf("spec of %s: %w", k.Owner, err)
	}
	raw, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("spec of %s: %w", k.Owner, err)
	}
	if len(raw) > store.RowBytes || len(k.Framework) > maxFramework {
		return nil, fmt.Errorf("spec of %.64s: %d bytes encoded, framework of %d: too large: %w", k.Owner, len(raw),
			len(k.Framework),
			errdefs.ErrInvalidArgument)
	}
	request, err := t.pool.Prepare(&k)
	if err != nil {
		return nil, err
	}
	sp := &Spec{Spec: k, Request: request, Need: k.Guarantee(), Origin: k.Origin(), Size: len(raw)}
	if sp.vips, err = t.vips.HoldSpec(&k, now); err != nil {
		t.pool.Drop(request)
		return nil, err
	}
	sp.Serves = endpointPorts(&k, sp.vips)
	sp.More = t.exposed.Given(k.Framework, k.Owner)
	t.byID[k.ID] = sp
	return sp, nil
}

// Load takes up a spec that has a row.
func (t *Table) Load(k kernel.Spec) error {
	sp, err := t.Add(k, time.Time{})
	if err == nil {
		sp.stored = true
	}
	return err
}

// Wait notes that n more instances of a spec wait.
func (t *Table) Wait(sp *Spec, n int) { sp.uses += n }

// Place notes an instance, before which the spec is durable.
func (t *Table) Place(sp *Spec) {
	sp.uses++
	sp.placed++
	if !sp.stored {
		sp.stored = true
		t.changed(sp.ID)
	}
}

// Release ends what Place noted.
func (t *Table) Release(sp *Spec, now time.Time) {
	sp.placed--
	t.Unuse(sp, 1, now)
}

// Unuse ends n uses of a spec, of which the last frees it.
func (t *Table) Unuse(sp *Spec, n int, now time.Time) {
	if sp.uses -= n; n > 0 {
		t.FreeUnused(sp, now)
	}
}

// FreeUnused frees a spec if nothing uses it.
func (t *Table) FreeUnused(sp *Spec, now time.Time) {
	if sp.uses > 0 {
		return
	}
	delete(t.byID, sp.ID)
	t.pool.Drop(sp.Request)
	if sp.stored {
		t.changed(sp.ID)
	}
	t.vips.ReleaseSpec(&sp.Spec, sp.vips, now)
}

// FreeAllUnused frees what nothing is made from, as after loading.
func (t *Table) FreeAllUnused() {
	for _, sp := range slices.SortedFunc(maps.Values(t.byID), func(a, b *Spec) int { return cmp.Compare(a.ID, b.ID) }) {
		t.FreeUnused(sp, time.Time{})
	}
}

// endpointPorts lists the ports of each task's endpoints, but for what placement decides. VIPs have their addresses.
func endpointPorts(k *kernel.Spec, vips []*vip.VIP) [][]kernel.EndpointPort {
	addrs := map[string]netip.Addr{}
	for _, v := range vips {
		addrs[v.Name] = v.Addr
	}
	out := make([][]kernel.EndpointPort, len(k.Tasks))
	for n := range k.Tasks {
		for _, p := range k.Tasks[n].Ports {
			ep := kernel.EndpointPort{Name: p.Name, Container: p.Container}
			if p.Publish {
				ep.Publish = p.Service
			}
			for _, ask := range p.VIPs {
				v := kernel.EndpointVIP{Addr: ask.Addr, Port: ask.Port}
				if ask.Name != "" {
					v.Name = ask.Name + "." + k.Framework
					v.Addr = addrs[v.Name]
				}
				ep.VIPs = append(ep.VIPs, v)
			}
			ep.Protocol = p.Protocol
			out[n] = append(out[n], ep)
		}
	}
	return out
}
