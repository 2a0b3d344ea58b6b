package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/marathon"
)

// BenchmarkScale takes one app from none to 10,000 instances that report in batches of 100, as a thousand agents would.
func BenchmarkScale(b *testing.B) {
	const n, batch = 10_000, 100
	for b.Loop() {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		s := NewState()
		s.Observe(kernel.Changes{Complete: true}, now)
		v := marathon.Timestamp(now)
		a := &marathon.App{ID: "/web", CMD: new("x"), CPUs: 0.1, Mem: 1, Instances: n, Version: v,
			VersionInfo:     &marathon.VersionInfo{LastScalingAt: v, LastConfigChangeAt: v},
			UpgradeStrategy: marathon.UpgradeStrategy{MaximumOverCapacity: 1, MinimumHealthCapacity: 1}}
		d := NewDeployment("d", v, []Change{{App: "/web", To: a}}, map[string]*marathon.App{"/web": a}, s.Mixed)
		s.Begin(d, nil)
		next, ids := 0, []kernel.InstanceID(nil)
		settle := func() {
			for {
				dec := Decide(s, now, func(string) kernel.InstanceID {
					next++
					return kernel.InstanceID(fmt.Sprintf("web.instance-%036d", next))
				})
				if dec.Empty() {
					return
				}
				for _, t := range dec.Transitions {
					s.Advance(t, now)
				}
				for _, l := range dec.Launch {
					ids = append(ids, l.Groups...)
				}
			}
		}
		settle()
		for _, state := range []kernel.State{kernel.Staging, kernel.Running} {
			for i := 0; i < n; i += batch {
				c := kernel.Changes{Complete: true}
				of, at := &kernel.Origin{Owner: "/web", Version: v}, &kernel.Host{Agent: "a"}
				for _, id := range ids[i : i+batch] {
					c.Instances = append(c.Instances, kernel.NewRecord(of, at, &kernel.Assignment{ID: id, Goal: kernel.GoalRun},
						[]kernel.Status{{State: state, Started: now}}, true))
				}
				s.Observe(c, now)
				settle()
			}
		}
		if len(s.Deployments) > 0 || len(ids) != n {
			b.Fatalf("deployments: got %d, ids: got %d", len(s.Deployments), len(ids))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/200, "ms/batch")
}
