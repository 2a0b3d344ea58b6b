package identity

import (
	"net/netip"
	"sync"
	"time"
)

// Failed logins are limited per account, so that many sources cannot guess one password, and per source, so that one
// source cannot guess many. A successful login costs nothing.
const (
	accountBurst = 10
	accountEvery = 6 * time.Second
	sourceBurst  = 30
	sourceEvery  = 2 * time.Second

	maxThrottled = 10_000 // accounts and sources remembered; over it, those with a full burst are forgotten
)

// throttle is a token bucket for each key: burst tries at once, and one more every so often.
type throttle struct {
	every time.Duration
	burst int

	mu     sync.Mutex
	fullAt map[string]time.Time // time at which the key has its whole burst again; guarded by mu
}

func newThrottle(every time.Duration, burst int) *throttle {
	return &throttle{every: every, burst: burst, fullAt: make(map[string]time.Time)}
}

// countTry counts one try of key, before its outcome is known. With a positive wait the try is refused, and may be
// made after that time.
func (t *throttle) countTry(key string, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	full, known := t.fullAt[key]
	if !known && len(t.fullAt) >= maxThrottled {
		for k, r := range t.fullAt {
			if !r.After(now) {
				delete(t.fullAt, k)
			}
		}
		if len(t.fullAt) >= maxThrottled {
			return t.every // the memory is full of keys that are guessing now
		}
	}
	if full.Before(now) {
		full = now
	}
	full = full.Add(t.every)
	if wait := full.Sub(now) - time.Duration(t.burst)*t.every; wait > 0 {
		return wait
	}
	t.fullAt[key] = full
	return 0
}

// refundTry uncounts a try of key.
func (t *throttle) refundTry(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if full, ok := t.fullAt[key]; ok {
		t.fullAt[key] = full.Add(-t.every)
	}
}

// sourceOf returns the part of a connection's address that one party controls: an IPv4 address or an IPv6 /64.
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
