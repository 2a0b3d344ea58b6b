package gateway

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
)

const healthBase = "/system/health/v1"

// The values of health in HealthUnit and HealthNode.
const (
	Healthy   = 0
	Unhealthy = 1
)

// Health reports the datacenter's health. The report is read during the request only.
type Health interface {
	Health(ctx context.Context) HealthReport
}

// HealthReport is the health of every machine of the datacenter in DC/OS's form: by units, which here are the parts
// of a daemon.
type HealthReport struct {
	Hostname string // of the answering machine
	IP       string // of the answering machine; one of Nodes has it
	Version  string
	AgentID  string // of the answering machine, empty if it has no agent
	Nodes    []HealthNode
}

// HealthNode is a machine.
type HealthNode struct {
	IP     string
	Role   string // master, agent or agent_public
	Health int
	Units  []HealthUnit
}

// HealthUnit is one part of one machine's daemon.
type HealthUnit struct {
	ID          string `json:"id"` // like a systemd unit's, as "dcos-mesos-master.service"
	Health      int    `json:"health"`
	Output      string `json:"output"` // the problem, empty if healthy
	Description string `json:"description"`
	Help        string `json:"help"`
	Name        string `json:"name"`
}

// unitSummary is a unit over all machines.
type unitSummary struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Health      int    `json:"health"`
	Description string `json:"description"`
}

type nodeSummary struct {
	HostIP string `json:"host_ip"`
	Health int    `json:"health"`
	Role   string `json:"role"`
}

type nodeOfUnit struct {
	nodeSummary
	Output string `json:"output"`
	Help   string `json:"help"`
}

// healthHandler answers DC/OS's diagnostics API from one report. It gets paths without their prefix.
func healthHandler(health Health) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "Health is read by GET.")
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		report := health.Health(r.Context())
		var answer any
		var ok bool
		switch parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/"); parts[0] {
		case "":
			answer, ok = report.self(), true
		case "units":
			answer, ok = report.byUnit(parts[1:])
		case "nodes":
			answer, ok = report.byNode(parts[1:])
		case "report":
			answer, ok = report.fullReport(), len(parts) == 1 || len(parts) == 2 && parts[1] == "download"
		}
		if !ok {
			writeError(w, http.StatusNotFound, "There is no such unit or machine: see "+healthBase+"/units and "+healthBase+
				"/nodes.")
			return
		}
		writeJSON(w, http.StatusOK, answer)
	})
}

func (h *HealthReport) node(ip string) (HealthNode, bool) {
	i := slices.IndexFunc(h.Nodes, func(n HealthNode) bool { return n.IP == ip })
	if i < 0 {
		return HealthNode{}, false
	}
	return h.Nodes[i], true
}

func (n HealthNode) unit(id string) (HealthUnit, bool) {
	i := slices.IndexFunc(n.Units, func(u HealthUnit) bool { return u.ID == id })
	if i < 0 {
		return HealthUnit{}, false
	}
	return n.Units[i], true
}

func (n HealthNode) summary() nodeSummary {
	return nodeSummary{HostIP: n.IP, Health: n.Health, Role: n.Role}
}

func (u HealthUnit) summary() unitSummary {
	return unitSummary{ID: u.ID, Name: u.Name, Health: u.Health, Description: u.Description}
}

// mergedUnits merges the units of all machines by id; the worst health counts.
func (h *HealthReport) mergedUnits() []unitSummary {
	merged := []unitSummary{}
	for _, n := range h.Nodes {
		for _, u := range n.Units {
			if i := slices.IndexFunc(merged, func(s unitSummary) bool { return s.ID == u.ID }); i >= 0 {
				merged[i].Health = max(merged[i].Health, u.Health)
			} else {
				merged = append(merged, u.summary())
			}
		}
	}
	slices.SortFunc(merged, func(a, b unitSummary) int { return cmp.Compare(a.ID, b.ID) })
	return merged
}

// self returns the answering machine.
func (h *HealthReport) self() any {
	n, _ := h.node(h.IP)
	return struct {
		Units      []HealthUnit `json:"units"`
		Hostname   string       `json:"hostname"`
		IP         string       `json:"ip"`
		Version    string       `json:"dcos_version"`
		Role       string       `json:"node_role"`
		MesosID    string       `json:"mesos_id"`
		DiagnosVer string       `json:"dcos_diagnostics_version"`
	}{append([]HealthUnit{}, n.Units...), h.Hostname, h.IP, h.Version, n.Role, h.AgentID, h.Version}
}

// byUnit answers units[/<id>[/nodes[/<ip>]]].
func (h *HealthReport) byUnit(path []string) (any, bool) {
	all := h.mergedUnits()
	if len(path) == 0 {
		return map[string][]unitSummary{"units": all}, true
	}
	i := slices.IndexFunc(all, func(u unitSummary) bool { return u.ID == path[0] })
	if i < 0 || len(path) > 1 && path[1] != "nodes" || len(path) > 3 {
		return nil, false
	}
	if len(path) == 1 {
		return all[i], true
	}
	having := []nodeSummary{}
	for _, n := range h.Nodes {
		u, ok := n.unit(path[0])
		if !ok {
			continue
		}
		s := nodeSummary{HostIP: n.IP, Health: u.Health, Role: n.Role}
		if len(path) == 3 && path[2] == n.IP {
			return nodeOfUnit{s, u.Output, u.Help}, true
		}
		having = append(having, s)
	}
	return map[string][]nodeSummary{"nodes": having}, len(path) == 2
}

// byNode answers nodes[/<ip>[/units[/<id>]]].
func (h *HealthReport) byNode(path []string) (any, bool) {
	if len(path) == 0 {
		all := []nodeSummary{}
		for _, n := range h.Nodes {
			all = append(all, n.summary())
		}
		return map[string][]nodeSummary{"nodes": all}, true
	}
	n, ok := h.node(path[0])
	if !ok || len(path) > 1 && path[1] != "units" || len(path) > 3 {
		return nil, false
	}
	switch len(path) {
	case 1:
		return n.summary(), true
	case 2:
		all := []unitSummary{}
		for _, u := range n.Units {
			all = append(all, u.summary())
		}
		return map[string][]unitSummary{"units": all}, true
	}
	u, ok := n.unit(path[2])
	return u, ok
}

// fullReport returns all health, by unit and by machine.
func (h *HealthReport) fullReport() any {
	units, nodes := map[string]any{}, map[string]any{}
	for _, u := range h.mergedUnits() {
		having := []nodeSummary{}
		for _, n := range h.Nodes {
			if own, ok := n.unit(u.ID); ok {
				having = append(having, nodeSummary{HostIP: n.IP, Health: own.Health, Role: n.Role})
			}
		}
		units[u.ID] = map[string]any{"UnitName": u.ID, "Title": u.Name, "Health": u.Health, "Nodes": having}
	}
	for _, n := range h.Nodes {
		nodes[n.IP] = map[string]any{"IP": n.IP, "Role": n.Role, "Health": n.Health,
			"Units": append([]HealthUnit{}, n.Units...)}
	}
	return map[string]any{"Units": units, "Nodes": nodes}
}
