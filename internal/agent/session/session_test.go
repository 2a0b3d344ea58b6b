package session

//lint:file-ignore SA1019 one connection that the other side dialed: net/http serves listeners and dials itself

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http2"

	"github.com/marinaos/marina/internal/kernel"
)

// agent is one of a test's own.
type agent struct {
	epoch   int64
	applied []uint64
	broken  error // of making an epoch durable, or of applying
}

func (a *agent) Register(*Outbox) kernel.Registration { return kernel.Registration{Epoch: a.epoch} }
func (a *agent) Leave(*Outbox)                        {}
func (a *agent) Epoch() int64                         { return a.epoch }

func (a *agent) Listen(epoch int64) error {
	if a.broken == nil {
		a.epoch = epoch
	}
	return a.broken
}

func (a *agent) Apply(specs map[kernel.SpecID]kernel.Spec, d *kernel.Down) error {
	for _, g := range d.Assignments {
		if _, ok := specs[g.Spec]; !ok {
			return fmt.Errorf("spec %s: %w", g.Spec, errdefs.ErrNotFound)
		}
	}
	a.applied = append(a.applied, d.Seq)
	return a.broken
}

func newSession(a *agent) *session {
	return &session{cfg: &Config{Agent: a, Log: slog.New(slog.DiscardHandler)}}
}

func TestFramesAreTakenInTheirOrderAndOnce(t *testing.T) {
	groups := []kernel.Assignment{{ID: "g"}}
	begin := kernel.Down{Epoch: 5, Seq: 1, Sync: true}
	for _, c := range []struct {
		name   string
		frames []kernel.Down
		taken  []bool
		err    string // of the last
	}{
		{"in order", []kernel.Down{begin, {Epoch: 5, Seq: 2, Assignments: groups}}, []bool{true, true}, ""},
		{"again", []kernel.Down{begin, {Epoch: 5, Seq: 1, Sync: true}}, []bool{true, false}, ""},
		{"a gap", []kernel.Down{begin, {Epoch: 5, Seq: 3}}, []bool{true, false}, "frame 3 after 1"},
		{"not from the first", []kernel.Down{{Epoch: 5, Seq: 2, Sync: true}}, []bool{false}, "frame 2 after 0"},
		{"an older leader", []kernel.Down{{Epoch: 3, Seq: 1, Sync: true}}, []bool{false},
			"frame of epoch 3, the agent has listened to 4"},
		{"specs before the sync", []kernel.Down{{Epoch: 5, Seq: 1, Specs: []kernel.Spec{{ID: "s"}}},
			{Epoch: 5, Seq: 2, Sync: true}}, []bool{true, true}, ""},
		{"changes before the sync", []kernel.Down{{Epoch: 5, Seq: 1, Assignments: groups}}, []bool{false},
			"frame 1 comes before the sync"},
		{"acks before the sync", []kernel.Down{{Epoch: 5, Seq: 1, Acks: []kernel.StatusAck{{}}}}, []bool{false},
			"frame 1 comes before the sync"},
		{"a new leader begins anew", []kernel.Down{begin, {Epoch: 6, Seq: 1, Sync: true}}, []bool{true, true}, ""},
		{"a new leader syncs first", []kernel.Down{begin, {Epoch: 6, Seq: 1, Assignments: groups}}, []bool{true, false},
			"comes before the sync"},
	} {
		s := newSession(&agent{epoch: 4})
		for i := range c.frames {
			taken, err := s.admit(&c.frames[i])
			want := ""
			if i == len(c.frames)-1 {
				want = c.err
			}
			if taken != c.taken[i] || (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: frame %d: got %v, %v, want %v, %q", c.name, i, taken, err, c.taken[i], want)
			}
		}
	}
}

func TestAHigherEpochIsDurableBeforeAnythingOfIt(t *testing.T) {
	a := &agent{epoch: 4, broken: errors.New("disk is full")}
	s := newSession(a)
	if taken, err := s.admit(&kernel.Down{Epoch: 5, Seq: 1, Sync: true}); taken || !errors.Is(err, a.broken) {
		t.Errorf("got %v, %v, want the frame refused", taken, err)
	}
}

func TestReadingEndsWithTheFirstFrameThatCannotBeApplied(t *testing.T) {
	for _, c := range []struct{ name, lines, err string }{
		{"no frame", `{"epoch":5,"seq":1,"sync":true}` + "\n\nnonsense\n", "frame after 1"},
		{"a spec that was not sent", `{"epoch":5,"seq":1,"sync":true,"specs":[{"id":"s"}]}` + "\n" +
			`{"epoch":5,"seq":2,"groups":[{"id":"g","spec":"s"},{"id":"h","spec":"other"}]}`, "frame 2: spec other"},
		{"the end", `{"epoch":5,"seq":1,"sync":true}`, "EOF"},
	} {
		a := &agent{}
		applied := make(chan uint64, 1)
		err := newSession(a).receive(strings.NewReader(c.lines), applied)
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.err)
		}
		if !slices.Equal(a.applied, []uint64{1}) || len(applied) != 1 {
			t.Errorf("%s: applied %v, told %d", c.name, a.applied, len(applied))
		}
	}
}

func TestAnOutboxIsBoundedAndEmptiedAtOnce(t *testing.T) {
	o := newOutbox()
	for i := range 3 {
		o.Status(kernel.Status{Seq: uint64(i)})
	}
	o.Released("marathon/db")
	if len(o.wake) != 1 {
		t.Error("nobody was told that something waits")
	}
	var up kernel.Up
	if err := o.take(&up); err != nil || len(up.Statuses) != 3 || len(up.Released) != 1 {
		t.Errorf("got %+v, %v, want all of it", up, err)
	}
	up = kernel.Up{}
	if err := o.take(&up); err != nil || len(up.Statuses)+len(up.Released) != 0 {
		t.Errorf("got %+v, %v, want nothing twice", up, err)
	}
	for range maxOutbox + 1 {
		o.Status(kernel.Status{})
	}
	if err := o.take(&up); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a master that takes nothing: got %v", err)
	}
	o = newOutbox()
	o.End(errdefs.ErrAborted)
	if err := o.take(&up); !errdefs.IsAborted(err) {
		t.Errorf("told to end: got %v", err)
	}
}

func TestMastersAreTriedInTurnWithGrowingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var tried []string
		var log strings.Builder
		l := New(Config{Masters: []string{"a:1", "b:1"}, BackoffMax: 2 * time.Second, Agent: &agent{},
			Log: slog.New(slog.NewTextHandler(&log, nil)),
			Dial: func(_ context.Context, address string) (net.Conn, error) {
				tried = append(tried, address)
				return nil, errors.New("no route")
			}})
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for i, address := range tried {
			if want := l.cfg.Masters[i%2]; address != want {
				t.Fatalf("attempt %d went to %s, want %s", i, address, want)
			}
		}
		if n := len(tried); n < 18 || n > 40 { // waits from 50 ms to 2 s
			t.Errorf("%d attempts in 30 s", n)
		}
		if n := strings.Count(log.String(), "no session with a master"); n != 2 {
			t.Errorf("logged %d times, want once for each master", n)
		}
	})
}

// An agent that is no member any more is told so at each connection, and both sides write a line each time.
func TestARemovedMachineAsksAgainOnceAMinute(t *testing.T) {
	cert := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour+time.Second)
		defer cancel()
		told := 0
		l := New(Config{Masters: []string{"m:1"}, BackoffMax: 2 * time.Second, Heartbeat: time.Second,
			Suspect: 10 * time.Second,
			Agent:   &agent{}, Handler: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
			TLS: &tls.Config{InsecureSkipVerify: true},
			Dial: func(context.Context, string) (net.Conn, error) {
				here, there := net.Pipe()
				told++
				go dismiss(tls.Server(there, &tls.Config{Certificates: []tls.Certificate{cert},
					NextProtos: []string{kernel.Protocol}}))
				return here, nil
			}})
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if told < 50 || told > 62 {
			t.Errorf("asked %d times in an hour, want about 60", told)
		}
	})
}

// dismiss is a master that has removed the machine: it says so, and ends the session when that was applied.
func dismiss(conn net.Conn) {
	defer conn.Close()
	cc, err := (&http2.Transport{}).NewClientConn(conn)
	if err != nil {
		return
	}
	frames, in := io.Pipe()
	defer in.Close()
	req, err := http.NewRequest("POST", "https://m"+kernel.SessionPath, frames)
	if err != nil {
		return
	}
	go io.WriteString(in, `{"epoch":1,"seq":1,"sync":true,"removed":"machine m was removed"}`+"\n")
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	for up := json.NewDecoder(resp.Body); ; {
		var got kernel.Up
		if err := up.Decode(&got); err != nil || got.Applied == 1 {
			return
		}
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestWithoutMastersThereIsNothingToDo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(Config{}).Run(ctx); err != nil {
		t.Error(err)
	}
}
