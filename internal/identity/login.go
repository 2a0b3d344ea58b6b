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

// RootUID is the user that the socket's tokens are for. It has no password unless it is given one.
const RootUID = "root"

var errCredentials = fmt.Errorf("login: user id or password is wrong: %w", errdefs.ErrUnauthenticated)

// TooManyLogins is the error of a login that was not tried. It is an ErrResourceExhausted.
type TooManyLogins struct{ Wait time.Duration }

// Error says how long to wait.
func (e *TooManyLogins) Error() string {
	return "too many logins did not work: try again in " + strconv.Itoa(e.Seconds()) + " s"
}

// Seconds is Wait rounded up.
func (e *TooManyLogins) Seconds() int { return int(math.Ceil(e.Wait.Seconds())) }

// Unwrap returns errdefs.ErrResourceExhausted.
func (e *TooManyLogins) Unwrap() error { return errdefs.ErrResourceExhausted }

// Login issues a token to one who knows the user's password, or, for a service account, whose token is signed by the
// account's key. source is the remote address of the connection. Exactly one of password and token is set. Unknown user, wrong
// password and account of the other kind are one ErrUnauthenticated at one cost.
func (d *Directory) Login(ctx context.Context, source, uid, password, token string, ttl time.Duration) (Issued, error) {
	now := time.Now()
	source = sourceOf(source)
	if wait := d.sources.take(source, now); wait > 0 {
		return Issued{}, &TooManyLogins{Wait: wait}
	}
	key := uid
	if checkUID(uid) != nil {
		key = "" // no such account can be: they share one name, so that rubbish fills no memory
	}
	if wait := d.accounts.take(key, now); wait > 0 {
		return Issued{}, &TooManyLogins{Wait: wait}
	}
	if err := d.prove(ctx, uid, password, token); err != nil {
		if !errors.Is(err, errdefs.ErrUnauthenticated) {
			d.refund(source, key)
		} else {
			d.log.Info("login refused", "user", key, "source", source)
		}
		return Issued{}, err
	}
	d.refund(source, key)
	return d.issue(ctx, uid, ttl, "login", true)
}

func (d *Directory) refund(source, key string) {
	d.sources.refund(source)
	d.accounts.refund(key)
}

func (d *Directory) prove(ctx context.Context, uid, password, token string) error {
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

// IssueRoot issues a token to the user root, whom it makes if need be. The caller has made sure that whoever gets it owns
// the machine.
func (d *Directory) IssueRoot(ctx context.Context, ttl time.Duration, description string) (Issued, error) {
	issued, err := d.Issue(ctx, RootUID, ttl, description)
	if !errors.Is(err, errdefs.ErrNotFound) {
		return issued, err
	}
	err = d.insertUser(ctx, RootUID, account{Description: "owner of the machine", Created: time.Now().UTC(), Epoch: newEpoch()})
	if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
		return Issued{}, err
	}
	return d.Issue(ctx, RootUID, ttl, description)
}
