package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/marinaos/marina/internal/gateway"
	"github.com/marinaos/marina/internal/kernel"
)

// unit is one part of the datacenter and how it is.
type unit struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
	Output  string `json:"output"`
}

// units asks every part how it is, and whoever sets something aside for its alarms.
func (d *daemon) units(ctx context.Context) []unit {
	return append(d.parts(ctx), d.alarmUnits()...)
}

// parts are the processes of the datacenter on this machine: while all are well it is up, whatever alarms a scheduler
// has.
func (d *daemon) parts(ctx context.Context) []unit {
	store := unit{ID: "marina-store.service", Name: "store"}
	if st, err := d.store.Status(ctx); err != nil {
		store.Output = err.Error()
	} else {
		store.Healthy, store.Output = st.Healthy, strings.Join(st.Problems, "; ")
	}
	lead := unit{ID: "marina-master.service", Name: "master", Output: "no leader"}
	agents := unit{ID: "marina-agent.service", Name: "agent", Output: "this machine has not joined yet"}
	if t := d.term.Load(); t != nil {
		lead.Healthy, lead.Output = true, ""
		for _, s := range t.schedulers {
			if !s.ready() {
				lead.Healthy, lead.Output = false, s.name+" is loading"
			}
		}
		id, _ := d.config.agentID()
		for _, a := range t.master.Agents() {
			if string(a.ID) == id {
				agents.Healthy, agents.Output = a.Connected, ""
				if !a.Connected {
					agents.Output = "this machine is connecting"
				}
			}
		}
	}
	return []unit{store, lead, agents}
}

// eachAlarmed yields the rooms that raise alarms, those of the present term last, each with the alarms it has.
func (d *daemon) eachAlarmed(yield func(room string, alarms []kernel.Alarm)) {
	yield("upkeep", d.upkeep.Alarms())
	yield("audit", d.audit.Alarms())
	if t := d.term.Load(); t != nil {
		for _, s := range t.schedulers {
			yield(s.name, s.alarms())
		}
	}
}

// alarmUnits are the rooms that raise alarms: one is unhealthy while it has some, and its output lists them.
func (d *daemon) alarmUnits() (out []unit) {
	d.eachAlarmed(func(room string, alarms []kernel.Alarm) { out = append(out, alarmed(room, alarms)) })
	return out
}

// alarms counts the alarms of all rooms.
func (d *daemon) alarms() (n float64) {
	d.eachAlarmed(func(_ string, alarms []kernel.Alarm) { n += float64(len(alarms)) })
	return n
}

// maxShownAlarms bounds the alarms that one unit lists.
const maxShownAlarms = 20

func alarmed(room string, alarms []kernel.Alarm) unit {
	lines := []string{}
	for _, a := range alarms[:min(len(alarms), maxShownAlarms)] {
		lines = append(lines, a.String())
	}
	if more := len(alarms) - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return unit{ID: "marina-" + room + ".service", Name: room, Healthy: len(alarms) == 0, Output: strings.Join(lines, "\n")}
}

// Health is DC/OS's view of units.
func (d *daemon) Health(ctx context.Context) gateway.HealthReport {
	ip := d.config.address.String()
	node := gateway.HealthNode{IP: ip, Role: "master"}
	for _, u := range d.units(ctx) {
		h := gateway.HealthUnit{ID: u.ID, Name: u.Name, Output: u.Output, Description: "Marina " + u.Name,
			Help: "less " + d.config.path("log", "daemon.log")}
		if !u.Healthy {
			h.Health, node.Health = gateway.Unhealthy, gateway.Unhealthy
		}
		node.Units = append(node.Units, h)
	}
	nodes := []gateway.HealthNode{node}
	if t := d.term.Load(); t != nil {
		for _, a := range t.master.Agents() {
			n := gateway.HealthNode{IP: a.Address.String(), Role: "agent"}
			if !a.Connected {
				n.Health = gateway.Unhealthy
			}
			if n.IP != ip {
				nodes = append(nodes, n)
			}
		}
	}
	id, _ := d.config.agentID()
	return gateway.HealthReport{Hostname: d.config.Hostname, IP: ip, Version: Version, AgentID: id, Nodes: nodes}
}

// resolver is the datacenter's name server on this machine, once it has its subnet.
func (d *daemon) resolver() netip.Addr {
	t := d.term.Load()
	if t == nil {
		return netip.Addr{}
	}
	id, _ := d.config.agentID()
	for _, a := range t.master.Agents() {
		if string(a.ID) == id && a.Subnet.IsValid() {
			return a.Subnet.Masked().Addr().Next()
		}
	}
	return netip.Addr{}
}
