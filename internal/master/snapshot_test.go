package master

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/master/event"
	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

// slowStore keeps commits waiting for as long as gate is closed.
type slowStore struct {
	*memory.Store
	gate chan struct{} // nil: open; whoever sets it does so while no commit is under way
}

func (s *slowStore) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if s.gate != nil {
		<-s.gate
	}
	return s.Store.Commit(ctx, txn)
}

// Proxies ask for the machines with every request: a disk that is slow must not hold them up, and what they see is
// durable.
func TestMachinesAreReadWhileACommitIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowStore{Store: memory.New()}
		lead, err := st.Campaign(t.Context(), "master", "m1")
		if err != nil {
			t.Fatal(err)
		}
		m := New(Config{}, Deps{Store: st, Leadership: lead, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		defer func() {
			cancel()
			<-ended
		}()
		if got := m.Agents(); len(got) != 0 {
			t.Errorf("machines of an empty datacenter: got %v", got)
		}
		up := event.AgentUp{Session: 1, Seq: 1, Registration: kernel.Registration{Incarnation: "1",
			Agent: kernel.Agent{ID: "a1", Hostname: "a1",
				Address: netip.MustParseAddr("192.0.2.1"), Total: kernel.Resources{MilliCPU: 4000, Mem: kernel.GiB,
					Disk: kernel.GiB}}}}
		if err := m.submit(ctx, item{event: up}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()

		st.gate = make(chan struct{})
		spec, err := (&kernel.Spec{Framework: "f", Owner: "/a", Version: "1", Role: "/",
			Network:     kernel.Network{Mode: kernel.NetworkHost},
			Reservation: &kernel.Reservation{Name: "c", Volumes: []kernel.ReservedVolume{{Name: "v", Bytes: 16 * kernel.MiB}}},
			Tasks:       []kernel.TaskSpec{{Name: "t", Suffix: ".t", Shell: "true"}}}).Seal()
		if err != nil {
			t.Fatal(err)
		}
		launched := make(chan error, 1)
		go func() {
			_, err := m.Launch(ctx, kernel.LaunchRequest{Key: "k", Spec: spec, Instances: []kernel.InstanceID{"g1"}})
			launched <- err
		}()
		synctest.Wait() // its commit is under way
		read := make(chan [2]int, 1)
		go func() { read <- [2]int{m.Agents()[0].Instances, len(m.Reservations("f"))} }()
		synctest.Wait()
		select {
		case got := <-read:
			if got != [2]int{} {
				t.Errorf("groups and claims that are shown before they are durable: got %v, want none", got)
			}
		default:
			t.Error("reading machines and claims waits for a commit")
		}
		close(st.gate)
		if err := <-launched; err != nil {
			t.Fatal(err)
		}
		if groups, claims := m.Agents()[0].Instances, m.Reservations("f"); groups != 1 || len(claims) != 1 ||
			claims[0].Agent != "a1" {
			t.Errorf("after the launch was answered: got %d groups and claims %v, want 1 and that of g1 on a1", groups, claims)
		}
		if a, b := m.Agents(), m.Agents(); &a[0] != &b[0] {
			t.Error("nothing changed: got another list of machines, want the same")
		}
		st.gate = nil
		cancel()
		if err := <-ended; err == nil {
			t.Error("run: got no error")
		}
		ended <- nil
		if got := m.Agents(); got != nil {
			t.Errorf("machines after the leadership: got %v, want none", got)
		}
	})
}

func BenchmarkAgents(b *testing.B) {
	st := memory.New()
	lead, err := st.Campaign(b.Context(), "master", "m1")
	if err != nil {
		b.Fatal(err)
	}
	m := New(Config{}, Deps{Store: st, Leadership: lead, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	for n := range 1000 {
		id := kernel.AgentID(string(rune('a'+n%26)) + string(rune('a'+n/26)))
		up := event.AgentUp{Session: event.SessionID(n + 1), Seq: 1, Registration: kernel.Registration{Incarnation: "1",
			Agent: kernel.Agent{ID: id, Hostname: string(id)}}}
		if err := m.submit(ctx, item{event: up}); err != nil {
			b.Fatal(err)
		}
	}
	m.Queue("")
	for b.Loop() {
		if got := len(m.Agents()); got != 1000 {
			b.Fatalf("got %d machines", got)
		}
	}
}
