package kubernetes

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/marinaos/marina/internal/identity"
	"github.com/marinaos/marina/internal/kernel/kerneltest"
	"github.com/marinaos/marina/internal/kubernetes/core"
	"github.com/marinaos/marina/internal/kubernetes/pki"
	"github.com/marinaos/marina/internal/kubernetes/wire"
	"github.com/marinaos/marina/internal/scheduler"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// BenchmarkWordOfASteward measures one steward's word to a leader of a thousand running clusters.
func BenchmarkWordOfASteward(b *testing.B) {
	const n = 1000
	kern, st := kerneltest.New(time.Now), memory.New()
	kern.AddAgent("a1", 10*n)
	kern.Auto(true)
	ctx, cancel := context.WithCancel(b.Context())
	l, err := st.Campaign(ctx, "master", "test")
	if err != nil {
		b.Fatal(err)
	}
	root := must(identity.NewRootKey(make([]byte, 32)))
	k := New(Config{Store: st, Kernel: kern, Fence: l.Fence(), Root: root, VIPs: netip.MustParsePrefix("198.18.0.0/16"),
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done() // stewards say nothing
			return nil, ctx.Err()
		}})
	same := must(pki.New("a", time.Now()))
	for i := range n {
		name := fmt.Sprintf("c%d", i)
		d := must(Definition{Name: name, Nodes: Nodes{Count: new(1)}, Privileged: new(true)}.Complete())
		row := must(rows.Put(name, core.Row{Definition: d, ID: name, VNI: 4096 + i, Created: time.Now()}))
		sealed := must(signing.Put(name, must(pki.Seal(root, signing.Key(name), same))))
		if _, err := st.Commit(ctx, store.Txn{Ops: []store.Op{row, sealed}}); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	defer func() { cancel(); <-done }()
	say := func(i, rev int) {
		name := fmt.Sprintf("c%d", i)
		s := &wire.Status{Rev: fmt.Sprint(rev), Version: "v1.37.2", Ready: true, DNS: true,
			Nodes: []wire.NodeStatus{{Name: "node-1", Ready: true}}}
		s.Addons.Applied, s.Probe.Done = true, true
		k.report(ctx, name, name, func(c *core.Cluster, now time.Time) { c.Hear(s, nil, now) })
	}
	err = k.loop.Do(ctx, func(context.Context, *scheduler.Change) error { return nil })
	if err != nil { // or all is loaded
		b.Fatal(err)
	}
	for i := range n {
		for {
			v, changed, err := k.Get(fmt.Sprintf("c%d", i))
			if err == nil && len(v.Members) == 2 && v.Members[1].Task != "" {
				break
			}
			<-changed
		}
		say(i, 0)
		say(i, 0)
	}
	for _, v := range k.List() {
		if v.State != Ready {
			b.Fatalf("cluster %s is %s: %v", v.Name, v.State, v.WaitsFor)
		}
	}
	for i := 0; b.Loop(); i++ {
		say(i%n, i+1)
	}
}
