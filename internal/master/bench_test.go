package master_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master"
	"github.com/marinaos/marina/internal/store/etcd"
)

// BenchmarkFleet measures a master with stub agents over real TLS connections and an embedded etcd that syncs every
// write: one app from 0 to 10,000 instances, until all run as a scheduler sees it; and requests of one instance each
// from many callers at once. MARINA_BENCH_AGENTS overrides 1,000 agents.
func BenchmarkFleet(b *testing.B) {
	agents := 1000
	if n, err := strconv.Atoi(os.Getenv("MARINA_BENCH_AGENTS")); err == nil {
		agents = n
	}
	dir := os.Getenv("MARINA_BENCH_DIR") // a directory on a real disk; the temporary directory may be memory
	if dir == "" {
		dir = b.TempDir()
	} else if sub, err := os.MkdirTemp(dir, "fleet"); err == nil {
		dir = sub
		b.Cleanup(func() { os.RemoveAll(sub) })
	}
	st, err := etcd.OpenEmbedded(b.Context(), etcd.Embedded{Dir: dir + "/etcd"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	// one process plays them all: no false alarms
	h := lead(b, st, master.Config{Suspect: time.Minute, Unreachable: 2 * time.Minute})
	stubs := make([]*stub, agents)
	for k := range stubs {
		stubs[k] = newStub(fmt.Sprintf("agent-%04d", k), 64000)
		stubs[k].connect(b, h)
	}
	h.agents(b, agents)

	b.Run(fmt.Sprintf("agents=%d/instances=10000", agents), func(b *testing.B) {
		const instances = 10_000
		var commit, running time.Duration
		for n := range b.N {
			w := h.Watch("marathon")
			groups := ids(fmt.Sprintf("big%d-%d", b.N, n), instances)
			began := time.Now()
			got, err := h.Launch(b.Context(), kernel.LaunchRequest{Key: "/big@1", Spec: app(b, fmt.Sprintf("/big%d", n)),
				Instances: groups})
			if err != nil || len(got.Placed) != instances {
				b.Fatalf("launch: placed %d, error %v", len(got.Placed), err)
			}
			commit += time.Since(began)
			follow(b, w, func(seen map[kernel.InstanceID]kernel.Instance, _ kernel.Changes) bool {
				return len(seen) >= instances && count(seen, kernel.Running) == instances
			})
			running += time.Since(began)
			b.StopTimer()
			end(b, h, w, groups)
			b.StartTimer()
		}
		b.ReportMetric(commit.Seconds()/float64(b.N), "s-to-commit")
		b.ReportMetric(instances*float64(b.N)/commit.Seconds(), "placements/s")
		b.ReportMetric(running.Seconds()/float64(b.N), "s-to-running")
	})

	for _, callers := range []int{100, 300, 1000} {
		b.Run(fmt.Sprintf("agents=%d/k=1/callers=%d", agents, callers), func(b *testing.B) { single(b, h, callers) })
	}
}

// single asks for one instance in each request, from many callers that each wait for theirs.
func single(b *testing.B, h *hall, callers int) {
	const all = 20_000
	each := all / callers
	for n := range b.N {
		w := h.Watch("marathon")
		if _, err := w.Next(b.Context()); err != nil { // it begins now
			b.Fatal(err)
		}
		groups := ids(fmt.Sprintf("one%d-%d-%d", callers, b.N, n), callers*each)
		spec := app(b, "/one")
		var slow []time.Duration
		var mu sync.Mutex
		var g errgroup.Group
		began := time.Now()
		for c := range callers {
			g.Go(func() error {
				for k := range each {
					id := groups[c*each+k]
					began := time.Now()
					got, err := h.Launch(b.Context(), kernel.LaunchRequest{Key: string(id), Spec: spec,
						Instances: []kernel.InstanceID{id}})
					if err != nil || len(got.Placed) != 1 {
						return fmt.Errorf("launch: %v, %w", got, err)
					}
					mu.Lock()
					slow = append(slow, time.Since(began))
					mu.Unlock()
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		b.ReportMetric(float64(len(groups))/took.Seconds(), "placements/s")
		b.ReportMetric(percentile(slow, 50).Seconds()*1000, "p50-ms")
		b.ReportMetric(percentile(slow, 99).Seconds()*1000, "p99-ms")
		b.StopTimer()
		end(b, h, w, groups)
		b.StartTimer()
	}
}

// end stops instances and waits until all have ended.
func end(b *testing.B, h *hall, w kernel.InstanceWatch, groups []kernel.InstanceID) {
	b.Helper()
	if err := h.Stop(b.Context(), "marathon", groups, "measured"); err != nil {
		b.Fatal(err)
	}
	gone := map[kernel.InstanceID]bool{}
	follow(b, w, func(_ map[kernel.InstanceID]kernel.Instance, c kernel.Changes) bool {
		for _, i := range c.Instances {
			if i.Removed() {
				gone[i.ID()] = true
			}
		}
		return len(gone) == len(groups)
	})
	w.Close()
}

func percentile(d []time.Duration, p int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)*p/100, len(d)-1)]
}
