package identity

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/marinaos/marina/internal/store"
)

// maxGone bounds what a view remembers of deleted tokens; over it, it forgets all and asks the store again.
const maxGone = 100_000

var (
	prefix = store.Prefix("identity")
	users  = store.NewTable[account]("identity", "users")
	tokens = store.NewTable[tokenRow]("identity", "tokens")
)

// account is a user's row. Its id is the uid.
type account struct {
	Description  string    `json:"description"`
	PasswordHash string    `json:"passwordHash,omitempty"`
	PublicKey    string    `json:"publicKey,omitempty"` // PEM; a service account
	Created      time.Time `json:"created"`

	// Epoch is random. A token is good only with the epoch of its user as it was issued, so that one write ends all
	// tokens of a user, also those on their way, and a user made again under an old name does not inherit any.
	Epoch string `json:"epoch"`
}

// tokenRow is a token's row. Its id is the token's jti. It is written once and deleted once: no row, no token.
type tokenRow struct {
	UID         string    `json:"uid"`
	Description string    `json:"description,omitempty"`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
	Epoch       string    `json:"epoch"`
	Login       bool      `json:"login,omitempty"` // got by logging in: makes room for newer ones
}

// liveToken is a token in a view.
type liveToken struct {
	id      string
	row     tokenRow
	session *session // of the requests that use it, nil before the first
}

// view is the directory as of one revision. Only Directory.Run's goroutine changes rows in it.
type view struct {
	mu      sync.Mutex
	rev     int64                            // guarded by mu
	moved   chan struct{}                    // closed and replaced when rev grows; guarded by mu
	users   map[string]account               // guarded by mu
	tokens  map[string]*liveToken            // guarded by mu
	perUser map[string]map[string]*liveToken // guarded by mu
	gone    map[string]struct{}              // ids of tokens known to be deleted; guarded by mu
}

func (v *view) init() {
	v.moved = make(chan struct{})
	v.users = make(map[string]account)
	v.tokens = make(map[string]*liveToken)
	v.perUser = make(map[string]map[string]*liveToken)
	v.gone = make(map[string]struct{})
}

// load replaces the view by a snapshot. Sessions of tokens that are not in it any more end.
func (v *view) load(snap *store.Snapshot) (broken []error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	userRows, tokenRows := users.Rows(snap), tokens.Rows(snap)
	keep := make(map[string]bool, len(tokenRows.List))
	clear(v.users)
	for uid, a := range userRows.All() {
		v.users[uid] = a
	}
	for id, row := range tokenRows.All() {
		keep[id] = true
		v.put(id, row)
	}
	for id := range v.tokens {
		if !keep[id] {
			v.remove(id)
		}
	}
	for id := range v.tokens {
		v.settle(id)
	}
	v.advance(snap.Revision)
	for _, err := range slices.Concat(userRows.Broken, tokenRows.Broken) {
		broken = append(broken, err)
	}
	return broken
}

// apply brings the view forward by one transaction.
func (v *view) apply(b store.Batch) (broken []error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range b.Changes {
		if uid, ok := users.ID(c.Key); ok {
			row, err := users.Decode(c.Item)
			if c.Deleted || err != nil {
				delete(v.users, uid)
			} else {
				v.users[uid] = row.Value
			}
			if !c.Deleted && err != nil {
				broken = append(broken, err)
			}
			for id := range v.perUser[uid] {
				v.settle(id)
			}
		} else if id, ok := tokens.ID(c.Key); ok {
			if c.Deleted {
				v.remove(id)
				continue
			}
			row, err := tokens.Decode(c.Item)
			if err != nil {
				v.remove(id)
				broken = append(broken, err)
				continue
			}
			v.put(id, row.Value)
		}
	}
	v.advance(b.Revision)
	return broken
}

// put adds a token. The caller holds mu.
func (v *view) put(id string, row tokenRow) {
	if v.tokens[id] != nil {
		return
	}
	t := &liveToken{id: id, row: row}
	v.tokens[id] = t
	if v.perUser[row.UID] == nil {
		v.perUser[row.UID] = make(map[string]*liveToken)
	}
	v.perUser[row.UID][id] = t
}

// remove takes a token out and ends its session. The caller holds mu.
func (v *view) remove(id string) {
	if len(v.gone) >= maxGone {
		clear(v.gone)
	}
	v.gone[id] = struct{}{}
	t := v.tokens[id]
	if t == nil {
		return
	}
	t.session.end(errRevoked)
	delete(v.tokens, id)
	delete(v.perUser[t.row.UID], id)
	if len(v.perUser[t.row.UID]) == 0 {
		delete(v.perUser, t.row.UID)
	}
}

// settle ends the session of a token whose user is gone or has ended all tokens. The caller holds mu.
func (v *view) settle(id string) {
	if t := v.tokens[id]; t.session != nil && !v.good(t) {
		t.session.end(errRevoked)
		t.session = nil
	}
}

// good says whether the token's user still stands behind it. The caller holds mu.
func (v *view) good(t *liveToken) bool {
	a, ok := v.users[t.row.UID]
	return ok && a.Epoch == t.row.Epoch
}

// advance sets the revision. The caller holds mu.
func (v *view) advance(rev int64) {
	v.rev = max(v.rev, rev)
	close(v.moved)
	v.moved = make(chan struct{})
}

// wait blocks until the view has reached rev; false if that took longer than limit or ctx ended.
func (v *view) wait(ctx context.Context, rev int64, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		v.mu.Lock()
		reached, moved := v.rev >= rev, v.moved
		v.mu.Unlock()
		if reached {
			return true
		}
		select {
		case <-moved:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// session returns the session of a token. known is false if the view has not heard of the token; a token that is known and
// not good has no session.
func (v *view) session(id string) (s *session, row tokenRow, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.tokens[id]
	if t == nil {
		_, known = v.gone[id]
		return nil, tokenRow{}, known
	}
	if !v.good(t) {
		return nil, t.row, true
	}
	if t.session == nil {
		t.session = newSession(t.row.Expires.Add(skew))
	}
	return t.session, t.row, true
}

// deleted notes that the store has no such token, for good: a token is signed only after its row was written.
func (v *view) deleted(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.remove(id)
}

// user returns a user's account.
func (v *view) user(uid string) (account, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a, ok := v.users[uid]
	return a, ok
}

// allUsers returns the users as of now.
func (v *view) allUsers() map[string]account {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make(map[string]account, len(v.users))
	for uid, a := range v.users {
		all[uid] = a
	}
	return all
}

// live returns the good tokens of a user, of everybody if uid is empty.
func (v *view) live(uid string, now time.Time) []liveToken {
	v.mu.Lock()
	defer v.mu.Unlock()
	from := v.tokens
	if uid != "" {
		from = v.perUser[uid]
	}
	var all []liveToken
	for id, t := range from {
		if v.good(t) && now.Before(t.row.Expires) {
			all = append(all, liveToken{id: id, row: t.row})
		}
	}
	return all
}

// dead lists at most limit tokens that no request can use any more.
func (v *view) dead(now time.Time, limit int) (ids []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, t := range v.tokens {
		if len(ids) == limit {
			break
		}
		if !v.good(t) || now.After(t.row.Expires.Add(skew)) {
			ids = append(ids, id)
		}
	}
	return ids
}
