package identity

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/marinaos/marina/internal/store"
)

// maxDeletedTokens limits the deleted tokens that a view remembers; over it, it forgets them all and the store is
// asked again.
const maxDeletedTokens = 100_000

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

	// Epoch is random. A token is good only while its user has the epoch it was issued under, so that one write ends all
	// tokens of a user, also those being issued, and a user created again under an old name inherits none.
	Epoch string `json:"epoch"`
}

// tokenRow is a token's row. Its id is the token's jti. It is written once and deleted once: a token without a row is
// not good.
type tokenRow struct {
	UID         string    `json:"uid"`
	Description string    `json:"description,omitempty"`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
	Epoch       string    `json:"epoch"`
	Login       bool      `json:"login,omitempty"` // from a login: evicted for newer ones
}

// liveToken is a token in the view.
type liveToken struct {
	id      string
	row     tokenRow
	session *session // of the requests that use it, nil before the first
}

// view is the directory as of one revision. Only Directory.Run's goroutine changes rows in it.
type view struct {
	mu            sync.Mutex
	rev           int64                            // guarded by mu
	advanced      chan struct{}                    // closed and replaced when rev grows; guarded by mu
	users         map[string]account               // guarded by mu
	tokens        map[string]*liveToken            // guarded by mu
	perUser       map[string]map[string]*liveToken // guarded by mu
	deletedTokens map[string]struct{}              // ids of tokens known to be deleted; guarded by mu
}

func (v *view) init() {
	v.advanced = make(chan struct{})
	v.users = make(map[string]account)
	v.tokens = make(map[string]*liveToken)
	v.perUser = make(map[string]map[string]*liveToken)
	v.deletedTokens = make(map[string]struct{})
}

// load replaces the view by a snapshot. Sessions of tokens that are not in it end.
func (v *view) load(snap *store.Snapshot) (broken []error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	userRows, tokenRows := users.Rows(snap), tokens.Rows(snap)
	listed := make(map[string]bool, len(tokenRows.List))
	clear(v.users)
	for uid, a := range userRows.All() {
		v.users[uid] = a
	}
	for id, row := range tokenRows.All() {
		listed[id] = true
		v.addToken(id, row)
	}
	for id := range v.tokens {
		if !listed[id] {
			v.removeToken(id)
		}
	}
	for id := range v.tokens {
		v.endStaleSession(id)
	}
	v.advance(snap.Revision)
	for _, err := range slices.Concat(userRows.Broken, tokenRows.Broken) {
		broken = append(broken, err)
	}
	return broken
}

// apply applies one transaction to the view.
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
				v.endStaleSession(id)
			}
		} else if id, ok := tokens.ID(c.Key); ok {
			if c.Deleted {
				v.removeToken(id)
				continue
			}
			row, err := tokens.Decode(c.Item)
			if err != nil {
				v.removeToken(id)
				broken = append(broken, err)
				continue
			}
			v.addToken(id, row.Value)
		}
	}
	v.advance(b.Revision)
	return broken
}

// addToken adds a token. The caller holds mu.
func (v *view) addToken(id string, row tokenRow) {
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

// removeToken removes a token and ends its session. The caller holds mu.
func (v *view) removeToken(id string) {
	if len(v.deletedTokens) >= maxDeletedTokens {
		clear(v.deletedTokens)
	}
	v.deletedTokens[id] = struct{}{}
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

// endStaleSession ends the session of a token whose user is gone or whose tokens were all revoked. The caller holds mu.
func (v *view) endStaleSession(id string) {
	if t := v.tokens[id]; t.session != nil && !v.isGood(t) {
		t.session.end(errRevoked)
		t.session = nil
	}
}

// isGood reports whether the token's user exists with the token's epoch. The caller holds mu.
func (v *view) isGood(t *liveToken) bool {
	a, ok := v.users[t.row.UID]
	return ok && a.Epoch == t.row.Epoch
}

// advance sets the revision. The caller holds mu.
func (v *view) advance(rev int64) {
	v.rev = max(v.rev, rev)
	close(v.advanced)
	v.advanced = make(chan struct{})
}

// waitRevision blocks until the view has reached rev; false if that took longer than limit or ctx ended.
func (v *view) waitRevision(ctx context.Context, rev int64, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		v.mu.Lock()
		reached, moved := v.rev >= rev, v.advanced
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

// session returns the session of a token. known is false if the token is neither in the view nor known to be deleted;
// a known token that is not good has no session.
func (v *view) session(id string) (s *session, row tokenRow, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.tokens[id]
	if t == nil {
		_, known = v.deletedTokens[id]
		return nil, tokenRow{}, known
	}
	if !v.isGood(t) {
		return nil, t.row, true
	}
	if t.session == nil {
		t.session = newSession(t.row.Expires.Add(skew))
	}
	return t.session, t.row, true
}

// markDeleted remembers that the store has no such token. That is final: a token is signed only after its row was
// written.
func (v *view) markDeleted(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.removeToken(id)
}

// user returns a user's account.
func (v *view) user(uid string) (account, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a, ok := v.users[uid]
	return a, ok
}

// allUsers returns a copy of the users.
func (v *view) allUsers() map[string]account {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make(map[string]account, len(v.users))
	for uid, a := range v.users {
		all[uid] = a
	}
	return all
}

// liveTokens returns the good tokens of a user, of all users if uid is empty.
func (v *view) liveTokens(uid string, now time.Time) []liveToken {
	v.mu.Lock()
	defer v.mu.Unlock()
	from := v.tokens
	if uid != "" {
		from = v.perUser[uid]
	}
	var all []liveToken
	for id, t := range from {
		if v.isGood(t) && now.Before(t.row.Expires) {
			all = append(all, liveToken{id: id, row: t.row})
		}
	}
	return all
}

// deadTokens lists at most limit tokens that no request can use any more.
func (v *view) deadTokens(now time.Time, limit int) (ids []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, t := range v.tokens {
		if len(ids) == limit {
			break
		}
		if !v.isGood(t) || now.After(t.row.Expires.Add(skew)) {
			ids = append(ids, id)
		}
	}
	return ids
}
