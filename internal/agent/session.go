package agent

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http2"

	"github.com/marinaos/marina/internal/agent/retry"
	"github.com/marinaos/marina/internal/kernel"
	"github.com/marinaos/marina/internal/runtime"
)

const (
	dialTimeout  = 5 * time.Second
	openTimeout  = 5 * time.Second // for a master to ask for the session on a connection
	writeTimeout = 5 * time.Second // of one frame
	maxOutbox    = 1 << 16         // statuses waiting to be sent; a master that is further behind starts over

	streamBuffer     = 512 << 10 // bytes of one request's body that may be under way
	connectionBuffer = 32 << 20  // of all: more than streams may fill together, so that no exec starves the session
	maxStreams       = 60
)

// outbox is what waits to be sent in a session. Guarded by Agent.mu.
type outbox struct {
	statuses []kernel.Status
	released []string          // claims of which nothing is left
	bundles  map[string]string // as registered
	stale    bool              // what was registered is no longer so
	over     bool              // too much waited
	wake     chan struct{}
}

func (o *outbox) add(s kernel.Status) {
	if len(o.statuses) >= maxOutbox {
		o.over = true
	} else {
		o.statuses = append(o.statuses, s)
	}
	o.poke()
}

func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// link is the agent's way to its masters.
type link struct{ a *Agent }

// run keeps a connection to a master until ctx ends: the next one in the list after each that ended, at once after one
// that had a session and with backoff after one that had none.
func (l link) run(ctx context.Context) error {
	if len(l.a.cfg.Masters) == 0 {
		<-ctx.Done()
		return nil
	}
	backoff, quiet := retry.First, false
	for i := 0; ctx.Err() == nil; i++ {
		address := l.a.cfg.Masters[i%len(l.a.cfg.Masters)]
		lived, err := l.visit(ctx, address)
		if ctx.Err() != nil {
			break
		}
		if lived {
			backoff, quiet = retry.First, false
		}
		level := slog.LevelInfo
		if quiet {
			level = slog.LevelDebug // once a round of attempts is enough
		}
		l.a.log.Log(ctx, level, "no session with a master, trying the next", "master", address, "err", err)
		quiet = quiet || !lived && i%len(l.a.cfg.Masters) == len(l.a.cfg.Masters)-1
		if !retry.Pause(ctx, backoff/2+rand.N(backoff/2)) {
			break
		}
		backoff = min(2*backoff, l.a.cfg.BackoffMax)
	}
	return nil
}

// visit serves one connection to a master until it ends, and tells whether there was a session.
func (l link) visit(ctx context.Context, address string) (lived bool, err error) {
	conn, err := l.reach(ctx, address)
	if err != nil {
		return false, err
	}
	s := &session{a: l.a, opened: make(chan struct{}), ended: make(chan struct{})}
	cctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.close = cancel
	stop := context.AfterFunc(cctx, func() { conn.Close() })
	defer stop()
	watchdog := time.AfterFunc(openTimeout, func() {
		select {
		case <-s.opened:
		default:
			cancel(fmt.Errorf("master asked for no session: %w", errdefs.ErrUnavailable))
		}
	})
	defer watchdog.Stop()
	server := &http2.Server{
		MaxConcurrentStreams:         maxStreams,
		MaxUploadBufferPerStream:     streamBuffer,
		MaxUploadBufferPerConnection: connectionBuffer,
		ReadIdleTimeout:              l.a.cfg.Suspect / 2,
		PingTimeout:                  l.a.cfg.Suspect / 2,
	}
	server.ServeConn(conn, &http2.ServeConnOpts{Context: cctx, Handler: api{l.a}.handler(s)})
	select {
	case <-s.opened:
		<-s.ended // nothing of one session acts beside the next
		lived = true
	default:
	}
	if err := context.Cause(cctx); err != nil {
		return lived, err
	}
	return lived, fmt.Errorf("master %s ended the connection: %w", address, errdefs.ErrUnavailable)
}

func (l link) reach(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := l.a.dial
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	raw, err := dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("master %s: %w", address, err)
	}
	cfg := l.a.cfg.TLS.Clone()
	cfg.NextProtos = []string{kernel.Protocol}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("master %s: %w", address, err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != kernel.Protocol {
		conn.Close()
		return nil, fmt.Errorf("master %s speaks %q, not %q; is it a master?: %w", address, got, kernel.Protocol, errdefs.ErrFailedPrecondition)
	}
	return conn, nil
}

// session is the one stream of frames on a connection. Its fields but the channels are owned by serve.
type session struct {
	a      *Agent
	opened chan struct{} // closed when the master asked for it
	ended  chan struct{} // closed when it is over, if it was opened
	close  context.CancelCauseFunc

	epoch int64
	seq   uint64 // of the last frame applied
	sync  bool   // there was one under epoch
	specs map[kernel.SpecID]kernel.Spec
}

// serve runs the session until either side ends it. The connection ends with it.
func (s *session) serve(w http.ResponseWriter, r *http.Request) {
	a := s.a
	select {
	case <-s.opened:
		http.Error(w, "this connection has a session", http.StatusConflict)
		return
	default:
		close(s.opened)
	}
	defer close(s.ended)
	a.ends.Restart()
	out := &outbox{wake: make(chan struct{}, 1)}
	applied := make(chan uint64, 1)
	a.mu.Lock()
	reg := a.registrationLocked()
	out.bundles = reg.Agent.Bundles
	a.live = out
	a.mu.Unlock()
	ctx, cancel := context.WithCancel(r.Context())
	errs := make(chan error, 1)
	go func() { // ended below
		errs <- s.send(ctx, w, reg, out, applied)
		s.close(fmt.Errorf("session: %w", errdefs.ErrUnavailable)) // unblocks the reader
	}()
	a.log.Info("session with a master begins", "agent", reg.Agent.ID, "epoch", reg.Epoch)
	err := s.receive(r.Body, applied)
	a.mu.Lock()
	a.live = nil
	a.mu.Unlock()
	cancel()
	s.close(err)
	if serr := <-errs; err == nil {
		err = serr
	}
	a.log.Info("session with a master ended", "err", err)
}

// send writes frames: the registration, statuses as they come, heartbeats.
func (s *session) send(ctx context.Context, w http.ResponseWriter, reg kernel.Registration, out *outbox, applied <-chan uint64) error {
	control := http.NewResponseController(w)
	var seq, upTo uint64
	write := func(up kernel.Up) error {
		seq++
		up.Seq, up.Applied = seq, upTo
		b, err := json.Marshal(&up)
		if err != nil {
			return err
		}
		if len(b) > kernel.MaxFrame {
			return fmt.Errorf("frame of %d bytes, the limit is %d: %w", len(b), kernel.MaxFrame, errdefs.ErrOutOfRange)
		}
		if err := control.SetWriteDeadline(time.Now().Add(s.a.cfg.Heartbeat + writeTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
		return control.Flush()
	}
	if err := write(kernel.Up{Register: &reg}); err != nil {
		return err
	}
	beat := time.NewTicker(s.a.cfg.Heartbeat)
	defer beat.Stop()
	for {
		var up kernel.Up
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		case upTo = <-applied:
		case <-out.wake:
			s.a.mu.Lock()
			up.Statuses, out.statuses = out.statuses, nil
			up.Released, out.released = out.released, nil
			over, stale := out.over, out.stale
			s.a.mu.Unlock()
			if stale {
				return fmt.Errorf("the machine has other bundles now, the agent registers anew: %w", errdefs.ErrAborted)
			}
			if over {
				return fmt.Errorf("master takes statuses too slowly: %w", errdefs.ErrResourceExhausted)
			}
		}
		if err := write(up); err != nil {
			return err
		}
		beat.Reset(s.a.cfg.Heartbeat)
	}
}

// receive reads and applies frames until the first that cannot be.
func (s *session) receive(body io.Reader, applied chan uint64) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), kernel.MaxFrame+1)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var d kernel.Down
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return fmt.Errorf("frame after %d: %w: %w", s.seq, err, errdefs.ErrInvalidArgument)
		}
		fresh, err := s.admit(&d)
		if err != nil {
			return err
		}
		if !fresh {
			continue
		}
		if err := s.a.apply(s, &d); err != nil {
			return fmt.Errorf("frame %d: %w", d.Seq, err)
		}
		select { // only the latest matters
		case <-applied:
		default:
		}
		applied <- d.Seq
	}
	return cmp.Or(lines.Err(), io.EOF)
}

// admit checks a frame's epoch and number. A higher epoch is on disk before anything of it is done. It reports whether
// the frame is to be applied: one that was already is not, again.
func (s *session) admit(d *kernel.Down) (bool, error) {
	a := s.a
	a.mu.Lock()
	self := a.self
	a.mu.Unlock()
	if d.Epoch < self.Epoch {
		a.log.Warn("frame of an old leader refused", "epoch", d.Epoch, "highest", self.Epoch)
		return false, fmt.Errorf("frame of epoch %d, the agent has listened to %d: %w", d.Epoch, self.Epoch, errdefs.ErrFailedPrecondition)
	}
	if d.Epoch > self.Epoch {
		if err := a.remember(func(r *agentRecord) { r.Epoch = max(r.Epoch, d.Epoch) }); err != nil {
			return false, err
		}
	}
	if d.Epoch != s.epoch {
		s.epoch, s.seq, s.sync, s.specs = d.Epoch, 0, false, map[kernel.SpecID]kernel.Spec{}
	}
	switch {
	case d.Seq != 0 && d.Seq <= s.seq:
		return false, nil
	case d.Seq != s.seq+1:
		return false, fmt.Errorf("frame %d after %d: %w", d.Seq, s.seq, errdefs.ErrFailedPrecondition)
	case !s.sync && !d.Sync && (len(d.Groups) > 0 || len(d.Drop) > 0 || len(d.Acks) > 0 || d.Endpoints != nil): // specs may come first
		return false, fmt.Errorf("frame %d comes before the sync: %w", d.Seq, errdefs.ErrFailedPrecondition)
	}
	s.seq, s.sync = d.Seq, s.sync || d.Sync
	return true, nil
}

// remember changes what the agent knows about itself, on disk first.
func (a *Agent) remember(change func(*agentRecord)) error {
	a.mu.Lock()
	next := a.self
	a.mu.Unlock()
	change(&next) // only the one session changes it
	if err := a.dir.Save(agentFile, &next); err != nil {
		return err
	}
	a.mu.Lock()
	a.self = next
	a.mu.Unlock()
	return nil
}

// apply does what a frame says. Groups begin and end in their own time.
func (a *Agent) apply(s *session, d *kernel.Down) error {
	for _, spec := range d.Specs {
		s.specs[spec.ID] = spec
	}
	if d.Network != nil || d.Subnet.IsValid() {
		if err := a.placeMachine(d); err != nil {
			return err
		}
	}
	if err := a.assign(s, d); err != nil {
		return err
	}
	a.claims.Release(d.Release)
	if d.Endpoints != nil {
		if err := a.ends.Change(d.Epoch, d.Endpoints); err != nil {
			return err
		}
	}
	if len(d.Acks) > 0 {
		a.ack(d.Acks)
	}
	return nil
}

// placeMachine takes the agent's subnet and the datacenter's network.
func (a *Agent) placeMachine(d *kernel.Down) error {
	a.mu.Lock()
	next := a.self
	a.mu.Unlock()
	if d.Subnet.IsValid() {
		next.Subnet = d.Subnet
	}
	if d.Network != nil {
		next.Network = new(*d.Network)
	}
	a.mu.Lock()
	same := next.Subnet == a.self.Subnet && a.self.Network != nil && next.Network != nil && *next.Network == *a.self.Network
	a.mu.Unlock()
	if !same {
		if err := a.remember(func(r *agentRecord) { r.Subnet, r.Network = next.Subnet, next.Network }); err != nil {
			return err
		}
	}
	a.configure(a.base, &next)
	return nil
}

// configure sets the machine's network up. What does not work now is tried again with the next Sync, and attaching a
// group says what is wrong.
func (a *Agent) configure(ctx context.Context, r *agentRecord) {
	if r.Network == nil {
		return
	}
	if err := a.network.Configure(ctx, r.Subnet, *r.Network); err != nil && ctx.Err() == nil {
		a.log.Error("network cannot be set up", "err", err)
	}
}

// assign begins, ends and forgets groups.
func (a *Agent) assign(s *session, d *kernel.Down) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	have := make(map[kernel.GroupID]bool, len(a.groups))
	for id := range a.groups {
		have[id] = true
	}
	do := decideFrame(have, d)
	for _, g := range do.begin { // nothing is begun of a frame that cannot be understood
		if _, ok := s.specs[g.Spec]; !ok {
			return fmt.Errorf("group %s: spec %s was not sent: %w", g.ID, g.Spec, errdefs.ErrNotFound)
		}
	}
	for _, g := range do.begin {
		if a.draining {
			break
		}
		a.beginLocked(a.planLocked(g, s.specs[g.Spec]))
		delete(a.orphans, g.ID)
	}
	for _, g := range do.stop {
		a.groups[g.ID].stop(&ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Why: orWhy(g.Why, "stopped"), Task: all})
	}
	for _, g := range do.resize {
		a.groups[g.ID].resized(g.Sizes)
	}
	for _, id := range do.forget {
		a.groups[id].stop(&ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Why: "no longer assigned to this machine", Task: all})
		a.groups[id].forgotten()
	}
	if d.Sync {
		a.synced = true
		clear(a.orphans)
		select {
		case a.recon <- struct{}{}: // what is unknown now is nobody's
		default:
		}
	}
	return nil
}

// planLocked is how a group begins that has no checkpoint: anew, or from the containers that an earlier agent left.
func (a *Agent) planLocked(g kernel.Group, spec kernel.Spec) plan {
	found := a.orphans[g.ID]
	if len(found) == 0 {
		rec := newRecord(a.self, a.cfg.Boot, g, spec)
		if g.Goal == kernel.GoalStop { // it may have run here once, and its checkpoint be lost
			for i := range rec.Tasks {
				rec.Tasks[i].Status.Seq = uint64(time.Now().Unix())
			}
		}
		return plan{do: verbStart, rec: rec, facts: make([]fact, len(rec.Tasks))}
	}
	byID := map[string]runtime.Found{}
	for _, f := range found {
		byID[f.ID] = f
	}
	rec := adoptRecord(a.self, g, spec, found, time.Now())
	if g.Goal == kernel.GoalStop {
		rec.Ending = &ending{State: kernel.Killed, Reason: kernel.ReasonKilled, Why: orWhy(g.Why, "stopped"), Task: all}
	}
	a.log.Info("containers without a checkpoint are adopted", "group", g.ID, "containers", len(found))
	return decideRecovery(rec, a.cfg.Boot, byID)
}

// ack hands acknowledgements to the groups they concern.
func (a *Agent) ack(acks []kernel.StatusAck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	byTask := map[kernel.TaskID]*group{}
	for _, g := range a.groups {
		for _, t := range g.tasks {
			byTask[t] = g
		}
	}
	for _, k := range acks {
		if g := byTask[k.Task]; g != nil {
			g.acked(k)
		}
	}
}

// registrationLocked is how the agent introduces itself now.
func (a *Agent) registrationLocked() kernel.Registration {
	r := kernel.Registration{Agent: a.describe(), Incarnation: a.incarnation, Boot: a.cfg.Boot, Epoch: a.self.Epoch,
		Endpoints: a.ends.Held(a.self.Epoch), Statuses: []kernel.Status{}}
	for _, g := range a.groups {
		r.Statuses = append(r.Statuses, g.shown...)
	}
	slices.SortFunc(r.Statuses, func(a, b kernel.Status) int { return cmp.Compare(a.Task, b.Task) })
	return r
}
