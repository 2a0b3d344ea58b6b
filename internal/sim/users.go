package sim

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
	brain "github.com/marinaos/marina/internal/master/core"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/sim/machine"
)

// users want something of the datacenter: of the count keeper, of services, of the kernel.
type users struct{ *World }

// launchApp wants a new app.
func (w users) launchApp() {
	if len(w.apps) >= maxApps {
		w.scaleApp()
		return
	}
	n := w.Serial()
	roles := []string{"/prod", "/prod/web", "/dev", "/"}
	a := &app{owner: fmt.Sprint("/app-", n), target: 1 + w.Dice.IntN(maxTarget)}
	role := roles[w.Dice.IntN(len(roles))]
	a.spec = w.drawSpec(a.owner, role, 1)
	w.apps = append(w.apps, a)
	w.Note("user", "launches %d instances in "+role, a.owner, int64(a.target), 0)
	w.wanted(a)
}

// drawSpec draws what an app's instances look like.
func (w users) drawSpec(owner, role string, version int) kernel.Spec {
	s := kernel.Spec{Framework: framework, Owner: owner, Version: fmt.Sprint(version), Role: role, Discovery: owner[1:],
		Network: kernel.Network{Mode: kernel.NetworkHost}}
	if w.Dice.Chance(0.5) {
		s.Network.Mode = kernel.NetworkBridge
	}
	if w.Dice.Chance(0.1) {
		s.Constraints = []kernel.Constraint{{Field: "hostname", Operator: "UNIQUE"}}
	}
	if w.Dice.Chance(0.3) {
		s.Priority = [...]int{-20, -10, 10, 20}[w.Dice.IntN(4)]
	}
	tasks, fixed := 1, false
	if w.Dice.Chance(0.2) {
		tasks = 2
	}
	if w.Dice.Chance(0.1) { // the reservation's name is the owner's: the next version keeps it
		s.Reservation = &kernel.Reservation{Name: owner[1:],
			Volumes: []kernel.ReservedVolume{{Name: "data", Bytes: 64 * kernel.MiB}}}
	}
	for i := range tasks {
		t := kernel.TaskSpec{Name: fmt.Sprint("t", i), Suffix: fmt.Sprint(".t", i), Shell: "sleep 1000",
			Guarantee: kernel.Resources{MilliCPU: int64(100 * (1 + w.Dice.IntN(12))),
				Mem: int64(1+w.Dice.IntN(16)) * 128 * kernel.MiB},
			KillGrace: w.Dice.Between(100*time.Millisecond, 5*time.Second)}
		for range w.Dice.IntN(3) {
			p := kernel.Port{Protocol: "tcp", Container: 80, Host: kernel.AnyHostPort}
			if !fixed && w.Dice.Chance(0.15) {
				fixed, p.Host = true, 31000+w.Dice.IntN(machine.FixedPorts)
			}
			if w.Dice.Chance(0.2) {
				p.VIPs = []kernel.VIP{{Name: owner[1:], Port: 80}}
			}
			t.Ports = append(t.Ports, p)
		}
		if w.Dice.Chance(0.3) {
			t.Checks = []kernel.Check{{Kind: kernel.CheckCommand, Argv: []string{"true"}, Interval: time.Second,
				Timeout: time.Second}}
		}
		s.Tasks = append(s.Tasks, t)
	}
	sealed, err := s.Seal()
	if err != nil {
		w.Fail("spec: %v", err)
	}
	w.asked[owner] = append(w.asked[owner], sealed)
	return sealed
}

// wanted tells the leader's scheduler that an app is wanted otherwise. Others read it when they begin to lead.
func (w users) wanted(a *app) {
	w.judge.wants(a)
	if m := w.leader(); m != nil && m.scheduler != nil {
		m.scheduler.soon(a, 0)
	}
}

func (w users) someApp() *app { return w.apps[w.Dice.IntN(len(w.apps))] }

func (w users) scaleApp() {
	a := w.someApp()
	a.target = w.Dice.IntN(maxTarget + 1)
	w.Note("user", "wants %d instances of", a.owner, int64(a.target), 0)
	w.wanted(a)
}

func (w users) removeApp() {
	a := w.someApp()
	a.target = 0
	w.Note("user", "wants no more of", a.owner, 0, 0)
	w.wanted(a)
}

// updateApp gives an app another spec: new instances are made of it, old ones are replaced as they end.
func (w users) updateApp() {
	a := w.someApp()
	a.spec = w.drawSpec(a.owner, a.spec.Role, w.Serial())
	w.Note("user", "changes the spec of", a.owner, 0, 0)
}

// setQuota sets, raises, lowers or removes the quota of a role.
func (w users) setQuota() {
	m := w.leader()
	if m == nil {
		return
	}
	roles := []string{"/prod", "/prod/web", "/dev"}
	role := roles[w.Dice.IntN(len(roles))]
	q := kernel.Quota{Role: role, Limit: kernel.NoLimit}
	remove := w.Dice.Chance(0.25)
	switch {
	case remove:
		w.Note("user", "removes the quota of", role, 0, 0)
	case w.Dice.Chance(0.7):
		q.Limit.MilliCPU = int64(w.Dice.IntN(60)) * 1000
		w.Note("user", "sets a quota of %d millicpus on", role, q.Limit.MilliCPU, 0)
	default:
		q.Guarantee.MilliCPU, q.Weight = int64(w.Dice.IntN(20))*1000, float64(1+w.Dice.IntN(3))
		w.Note("user", "guarantees %d millicpus to", role, q.Guarantee.MilliCPU, 0)
	}
	m.request(func(r event.RequestID) event.Event {
		return event.SetQuota{Request: r, Quota: q, Remove: remove}
	}, func(r brain.Reply) {
		// Guarantees of others may be more than the limit.
		if r.Err != nil && !errdefs.IsNotFound(r.Err) && !errdefs.IsInvalidArgument(r.Err) {
			w.Fail("quota of %s: %v", role, r.Err)
		}
	})
}

// drawChange asks services for something: a new app, another number of instances, another configuration, or its end.
func (w users) drawChange() {
	m := w.leader()
	if m == nil || m.marathon == nil {
		return
	}
	id := fmt.Sprint("/team/svc-", w.Dice.IntN(8))
	version := fmt.Sprintf("v%08d", w.Serial())
	kind, n := w.Dice.IntN(8), w.Dice.IntN(12)
	fresh := w.drawApp(id, version, n)
	w.Note("user", "asks for change %d of", id, int64(kind), 0)
	m.marathon.deploy(id, w.Dice.Chance(0.4), func(old *marathon.App) *marathon.App {
		switch {
		case kind == 0:
			return nil
		case old == nil:
			return fresh
		case kind < 4:
			scaled := *old
			scaled.Instances, scaled.Version = n, version
			scaled.VersionInfo = &marathon.VersionInfo{LastScalingAt: version, LastConfigChangeAt: old.Config()}
			return &scaled
		}
		return fresh
	})
}

func (w users) drawApp(id, version string, instances int) *marathon.App {
	shares := []float64{0, 0.2, 0.5, 1}
	a := &marathon.App{ID: id, CMD: new("sleep 1000"), Instances: instances, CPUs: 0.1 * float64(1+w.Dice.IntN(8)),
		Mem: 64 * float64(1+w.Dice.IntN(8)), BackoffSeconds: 1, BackoffFactor: 1.15, MaxLaunchDelaySeconds: 5,
		KillSelection: "YOUNGEST_FIRST", Role: "team", TaskKillGracePeriodSeconds: new(w.Dice.IntN(4)),
		UnreachableStrategy: marathon.UnreachableStrategy{
			Inactive: (3 + w.Dice.IntN(4)) * w.Pace, Expunge: (7 + w.Dice.IntN(6)) * w.Pace},
		UpgradeStrategy: marathon.UpgradeStrategy{
			MaximumOverCapacity: shares[w.Dice.IntN(4)], MinimumHealthCapacity: shares[w.Dice.IntN(4)]},
		Version: version, VersionInfo: &marathon.VersionInfo{LastScalingAt: version, LastConfigChangeAt: version}}
	if w.Dice.Chance(0.5) {
		a.PortDefinitions = []marathon.PortDefinition{{Port: 10000 + w.Dice.IntN(1000), Protocol: "tcp"}}
	}
	if w.Dice.Chance(0.4) {
		a.HealthChecks = []marathon.HealthCheck{{Protocol: "COMMAND", Command: &marathon.Command{Value: "true"},
			IntervalSeconds: 1, TimeoutSeconds: 1, MaxConsecutiveFailures: 3}}
	}
	if w.Dice.Chance(0.3) {
		a.Labels = map[string]string{"MARINA_PRIORITY": fmt.Sprint([...]int{-10, 10}[w.Dice.IntN(2)])}
	}
	spec, err := marathon.Spec(a)
	if err != nil {
		w.Fail("spec of %s: %v", id, err)
	}
	w.asked[id] = append(w.asked[id], spec)
	return a
}
