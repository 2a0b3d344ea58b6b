package identity

import (
	"net/netip"
	"sync"
	"time"
)

// Logins that do not work are limited per account, so that many sources cannot guess one password, and per source, so that
// one source cannot guess many. A login that works costs nothing.
const (
	accountBurst = 10
	accountEvery = 6 * time.Second
	sourceBurst  = 30
	sourceEvery  = 2 * time.Second

	maxThrottled = 10_000 // accounts and sources remembered; over it, those at rest are forgotten
)

// throttle lets each key try burst times at once and once every so often in the long run.
type throttle struct {
	every time.Duration
	burst int

	mu   sync.Mutex
	rest map[string]time.Time // when the key will have its whole burst again; guarded by mu
}

func newThrottle(every time.Duration, burst int) *throttle {
	return &throttle{every: every, burst: burst, rest: make(map[string]time.Time)}
}

// take counts one try of key, before its outcome is known. A positive wait means that it may not be made and after how long
// it may.
func (t *throttle) take(key string, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest, known := t.rest[key]
	if !known && len(t.rest) >= maxThrottled {
		for k, r := range t.rest {
			if !r.After(now) {
				delete(t.rest, k)
			}
		}
		if len(t.rest) >= maxThrottled {
			return t.every // as many are guessing as can be remembered
		}
	}
	if rest.Before(now) {
		rest = now
	}
	rest = rest.Add(t.every)
	if wait := rest.Sub(now) - time.Duration(t.burst)*t.every; wait > 0 {
		return wait
	}
	t.rest[key] = rest
	return 0
}

// refund takes a try of key back.
func (t *throttle) refund(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rest, ok := t.rest[key]; ok {
		t.rest[key] = rest.Add(-t.every)
	}
}

// sourceOf is the part of a connection's address that one party controls: an IPv4 address or an IPv6 /64.
func sourceOf(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64) // of an IPv6 address never fails
	return p.String()
}
