package identity

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
)

// RootUID is the user of the socket's tokens. It has no password unless it is given one.
const RootUID = "root"

var errCredentials = fmt.Errorf("login: user id or password is wrong: %w", errdefs.ErrUnauthenticated)

// TooManyLogins is the error of a login that was refused untried. It is an ErrResourceExhausted.
type TooManyLogins struct{ Wait time.Duration }

// Error names the time to wait.
func (e *TooManyLogins) Error() string {
	return "too many logins did not work: try again in " + strconv.Itoa(e.Seconds()) + " s"
}

// Seconds is Wait rounded up.
func (e *TooManyLogins) Seconds() int { return int(math.Ceil(e.Wait.Seconds())) }

// Unwrap returns errdefs.ErrResourceExhausted.
func (e *TooManyLogins) Unwrap() error { return errdefs.ErrResourceExhausted }

// Login issues a token for the user's password or, for a service account, for a token signed by the account's key.
// source is the remote address of the connection. Exactly one of password and token is set. Unknown user, wrong
// password and account of the other kind are one ErrUnauthenticated at one cost.
func (d *Directory) Login(ctx context.Context, source, uid, password, token string, ttl time.Duration) (Issued, error) {
	now := time.Now()
	source = sourceOf(source)
	if wait := d.sources.countTry(source, now); wait > 0 {
		return Issued{}, &TooManyLogins{Wait: wait}
	}
	key := uid
	if checkUID(uid) != nil {
		key = "" // no such account can exist: they share one name, so that garbage fills no memory
	}
	if wait := d.accounts.countTry(key, now); wait > 0 {
		return Issued{}, &TooManyLogins{Wait: wait}
	}
	if err := d.checkCredentials(ctx, uid, password, token); err != nil {
		if !errors.Is(err, errdefs.ErrUnauthenticated) {
			d.refundTries(source, key)
		} else {
			d.log.Info("login refused", "user", key, "source", source)
		}
		return Issued{}, err
	}
	d.refundTries(source, key)
	return d.issueToken(ctx, uid, ttl, "login", true)
}

func (d *Directory) refundTries(source, key string) {
	d.sources.refundTry(source)
	d.accounts.refundTry(key)
}

func (d *Directory) checkCredentials(ctx context.Context, uid, password, token string) error {
	a, _ := d.view.user(uid)
	if token != "" {
		key, err := parsePublicKey(a.PublicKey)
		if err != nil || verifyService(token, uid, key) != nil {
			return errCredentials
		}
		return nil
	}
	if len(password) > maxPassword {
		return errCredentials
	}
	ok, err := d.hasher.verify(ctx, password, a.PasswordHash)
	if err != nil {
		return err
	}
	if !ok {
		return errCredentials
	}
	return nil
}

// IssueRoot issues a token for the user root, which it creates if need be. The caller has made sure that the receiver
// owns the machine.
func (d *Directory) IssueRoot(ctx context.Context, ttl time.Duration, description string) (Issued, error) {
	issued, err := d.Issue(ctx, RootUID, ttl, description)
	if !errors.Is(err, errdefs.ErrNotFound) {
		return issued, err
	}
	err = d.insertUser(ctx, RootUID, account{Description: "owner of the machine",
		Created: time.Now().UTC(), Epoch: newEpoch()})
	if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
		return Issued{}, err
	}
	return d.Issue(ctx, RootUID, ttl, description)
}
