package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/agent"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

// instant is a runtime whose containers cost nothing, so that what is measured is the agent: its checkpoints, above
// all.
type instant struct {
	mu   sync.Mutex
	all  map[string]runtime.Found // guarded by mu
	exit chan runtime.Exit
}

func (r *instant) Pull(context.Context, string, bool) error { return nil }
func (r *instant) Create(_ context.Context, c runtime.Container) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[c.ID] = runtime.Found{ID: c.ID, Labels: c.Labels}
	return nil
}
func (r *instant) Start(_ context.Context, id string) (runtime.Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.all[id]
	f.Running, f.Process = true, runtime.Process{PID: len(r.all), Started: time.Now()}
	r.all[id] = f
	return f.Process, nil
}
func (r *instant) Signal(_ context.Context, id string, sig int) error {
	r.exit <- runtime.Exit{ID: id, Code: 128 + sig}
	return nil
}
func (r *instant) Remove(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, id)
	return nil
}
func (r *instant) Containers(context.Context) (out []runtime.Found, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.all {
		out = append(out, f)
	}
	return out, nil
}
func (r *instant) Exits(context.Context) <-chan runtime.Exit                  { return r.exit }
func (r *instant) Exec(context.Context, string, runtime.Exec) (int, error)    { return 0, nil }
func (r *instant) Stats(context.Context, string) (s runtime.Stats, err error) { return s, nil }
func (r *instant) Layer(context.Context, string) (int64, error)               { return 0, nil }
func (r *instant) Update(context.Context, string, runtime.Limits) error       { return nil }
func (r *instant) IDs() kernel.IDRange                                        { return kernel.IDRange{} }

func (r *instant) MountVolume(context.Context, string, string, int64) error { return nil }
func (r *instant) MountMemory(context.Context, string, int64, uint32) error { return nil }
func (r *instant) Unmount(context.Context, string) error                    { return nil }
func (r *instant) Mounted(context.Context, string) (at []string, err error) { return at, nil }

// BenchmarkGroups starts 100 instances, waits until the master has heard that all run, and ends them.
func BenchmarkInstances(b *testing.B) {
	const n = 100
	m := newMaster(b)
	defer m.close()
	rt := &instant{all: map[string]runtime.Found{}, exit: make(chan runtime.Exit, n)}
	a, err := agent.New(agent.Config{State: b.TempDir(), Address: netip.MustParseAddr("127.0.0.1"), Masters: []string{m.address()},
		TLS: m.clientTLS, MinFreeDisk: 1}, agent.Deps{Runtime: rt, Network: newNetTwin(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() { cancel(); close(rt.exit); <-done }()
	m.connected(0)
	all := func(i int, s kernel.State) {
		for k := range n {
			m.reaches(kernel.TaskID(fmt.Sprintf("g%d-%d.t0", i, k)), s)
		}
	}
	var running, ending time.Duration
	i := 0
	for b.Loop() {
		i++
		began := time.Now()
		for k := range n {
			m.launch(specOf("true"), kernel.Assignment{ID: kernel.InstanceID(fmt.Sprintf("g%d-%d", i, k))})
		}
		all(i, kernel.Running)
		running += time.Since(began)
		began = time.Now()
		for k := range n {
			m.end(kernel.InstanceID(fmt.Sprintf("g%d-%d", i, k)))
		}
		all(i, kernel.Killed)
		ending += time.Since(began)
	}
	b.ReportMetric(float64(i*n)/running.Seconds(), "starts/s")
	b.ReportMetric(float64(i*n)/ending.Seconds(), "ends/s")
}
