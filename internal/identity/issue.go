package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/uuid"

	"github.com/marinaos/marina/internal/store"
)

// Token is a token's entry in lists.
type Token struct {
	ID          string    `json:"id"`
	UID         string    `json:"uid"`
	Description string    `json:"description"`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
}

// Issued is a new token. Its secret is not stored and cannot be had again.
type Issued struct {
	Secret  string    `json:"token"`
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
}

// Issue issues a token for a user. A ttl of zero is DefaultTTL. When it returns, the token is durable and good on
// every master. An unknown user is ErrNotFound, a ttl out of bounds ErrInvalidArgument, more than MaxTokens
// ErrResourceExhausted.
func (d *Directory) Issue(ctx context.Context, uid string, ttl time.Duration, description string) (Issued, error) {
	return d.issueToken(ctx, uid, ttl, description, false)
}

func (d *Directory) issueToken(ctx context.Context, uid string, ttl time.Duration, description string,
	login bool) (Issued, error) {
	ttl = cmp.Or(ttl, DefaultTTL)
	switch {
	case ttl < time.Second || ttl > MaxTTL:
		return Issued{}, fmt.Errorf("token: life of %v: use 1s to %v: %w", ttl, MaxTTL, errdefs.ErrInvalidArgument)
	case len(description) > maxDescription:
		return Issued{}, fmt.Errorf("token: description of %d bytes, limit %d: %w",
			len(description), maxDescription, errdefs.ErrInvalidArgument)
	}
	user, err := users.Get(ctx, d.store, uid)
	if err != nil {
		return Issued{}, fmt.Errorf("token for user %s: %w", uid, err)
	}
	drop, err := d.evictForToken(uid, login)
	if err != nil {
		return Issued{}, err
	}
	now := time.Now().Truncate(time.Second) // the resolution of a JWT
	row := tokenRow{UID: uid, Description: description, Issued: now, Expires: now.Add(ttl.Truncate(time.Second)),
		Epoch: user.Value.Epoch, Login: login}
	id := uuid.NewString()
	put, err := tokens.Put(id, row)
	if err != nil {
		return Issued{}, fmt.Errorf("token for user %s: %w", uid, err)
	}
	if err := d.commitAndWait(ctx, []store.Guard{users.Exists(uid)}, append(drop, put)...); err != nil {
		return Issued{}, fmt.Errorf("token for user %s: %w", uid, err)
	}
	secret, err := d.signer.sign(id, uid, row.Issued, row.Expires)
	if err != nil {
		return Issued{}, err
	}
	d.log.Info("token issued", "user", uid, "token", id, "expires", row.Expires, "login", login)
	return Issued{Secret: secret, ID: id, Expires: row.Expires}, nil
}

// evictForToken returns the operations that keep a user within MaxTokens with one more: a login evicts the oldest
// login, so that a script that logs in again and again locks nobody out; tokens from Issue stay until somebody
// revokes them.
func (d *Directory) evictForToken(uid string, login bool) ([]store.Op, error) {
	all := d.view.liveTokens(uid, time.Now())
	if len(all) < MaxTokens {
		return nil, nil
	}
	if login {
		all = slices.DeleteFunc(all, func(t liveToken) bool { return !t.row.Login })
		if len(all) > 0 {
			oldest := slices.MinFunc(all, func(a, b liveToken) int { return a.row.Issued.Compare(b.row.Issued) })
			return []store.Op{tokens.Delete(oldest.id)}, nil
		}
	}
	return nil, fmt.Errorf("token for user %s: has %d, the limit: revoke some: %w",
		uid, MaxTokens, errdefs.ErrResourceExhausted)
}

// List returns the good tokens of a user, of everybody if uid is empty, the newest first.
func (d *Directory) List(uid string) []Token {
	all := []Token{}
	for _, t := range d.view.liveTokens(uid, time.Now()) {
		all = append(all, Token{ID: t.id, UID: t.row.UID, Description: t.row.Description, Issued: t.row.Issued,
			Expires: t.row.Expires})
	}
	slices.SortFunc(all, func(a, b Token) int { return cmp.Or(b.Issued.Compare(a.Issued), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Revoke ends a token: durably, on this master when it returns, on the others as soon as their watch delivers it.
// ErrNotFound if there is no such token.
func (d *Directory) Revoke(ctx context.Context, id string) error {
	err := d.commitAndWait(ctx, []store.Guard{tokens.Exists(id)}, tokens.Delete(id))
	if errors.Is(err, store.ErrConflict) {
		err = fmt.Errorf("list the tokens for the ones there are: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("token %.80q: %w", id, err)
	}
	d.log.Info("token revoked", "token", id)
	return nil
}

// RevokeUser ends all tokens of a user in one write.
func (d *Directory) RevokeUser(ctx context.Context, uid string) error {
	err := d.updateUser(ctx, uid, func(a *account) { a.Epoch = newEpoch() })
	if err == nil {
		d.log.Info("tokens of user revoked", "user", uid)
	}
	return err
}
