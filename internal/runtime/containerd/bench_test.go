package containerd

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkStart measures a container of an image present from Create to its process running, one after the other and
// as many at a time as the agent would; and taking them away.
func BenchmarkStart(b *testing.B) {
	for _, together := range []int{1, 8} {
		b.Run(fmt.Sprint(together, " at a time"), func(b *testing.B) {
			p := newPlace(b)
			var mu sync.Mutex
			var took, removed []time.Duration
			began := time.Now()
			for b.Loop() {
				var wg sync.WaitGroup
				for range together {
					c := p.container("stubborn")
					wg.Go(func() {
						t := time.Now()
						p.run(c)
						up := time.Since(t)
						t = time.Now()
						if err := p.Remove(b.Context(), c.ID); err != nil {
							b.Error(err)
						}
						mu.Lock()
						defer mu.Unlock()
						took, removed = append(took, up), append(removed, time.Since(t))
					})
				}
				wg.Wait()
			}
			slices.Sort(took)
			slices.Sort(removed)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-start-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-start-ms")
			b.ReportMetric(float64(removed[len(removed)/2].Microseconds())/1000, "p50-remove-ms")
			b.ReportMetric(float64(len(took))/time.Since(began).Seconds(), "containers/s")
		})
	}
}
