package services

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	"github.com/marinaos/marina/internal/services/core"
)

// Frontend finds the app whose label DCOS_SERVICE_NAME, outer slashes dropped, segments reversed and joined by dots, is
// name, and where one running instance of it answers. scheme is its label DCOS_SERVICE_SCHEME, keep that it wants to
// see the path's prefix too (DCOS_SERVICE_REWRITE_REQUEST_URLS=false). It answers from memory.
func (s *Services) Frontend(name string) (at netip.AddrPort, scheme string, keep, ok bool) {
	machines := map[kernel.AgentID]netip.Addr{}
	for _, m := range s.cfg.Kernel.Agents() {
		machines[m.ID] = m.Address
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, id := range sortedKeys(s.state.Apps) {
		a := s.state.Apps[id]
		index, err := strconv.Atoi(a.Labels["DCOS_SERVICE_PORT_INDEX"])
		if err != nil || doorName(a.Labels["DCOS_SERVICE_NAME"]) != name {
			continue
		}
		for _, i := range s.state.Instances(id) {
			if i.Waiting || i.Stopping || i.State() != kernel.Running {
				continue
			}
			if at := portOf(a, i, index, machines[i.Agent]); at.IsValid() {
				return at, a.Labels["DCOS_SERVICE_SCHEME"], a.Labels["DCOS_SERVICE_REWRITE_REQUEST_URLS"] == "false", true
			}
		}
	}
	return netip.AddrPort{}, "", false, false
}

func doorName(label string) string {
	parts := strings.Split(strings.Trim(label, "/"), "/")
	slices.Reverse(parts)
	return strings.Join(parts, ".")
}

// portOf returns the address of the index-th port of an instance: on its own address if it has one, else on its
// machine's.
func portOf(a *marathon.App, i *core.Instance, index int, machine netip.Addr) netip.AddrPort {
	g := i.Assignment()
	if a.Container != nil && !a.HostNetwork() && g.Address.IsValid() {
		if index >= 0 && index < len(a.Container.PortMappings) && a.Container.PortMappings[index].ContainerPort != 0 {
			return netip.AddrPortFrom(g.Address, uint16(a.Container.PortMappings[index].ContainerPort))
		}
	}
	if index >= 0 && index < len(g.HostPorts) && g.HostPorts[index] != 0 {
		return netip.AddrPortFrom(machine, g.HostPorts[index])
	}
	return netip.AddrPort{}
}
