package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
)

// User is a user or a service account in DC/OS's form.
type User struct {
	UID          string `json:"uid"`
	URL          string `json:"url"`
	Description  string `json:"description"`
	IsRemote     bool   `json:"is_remote"`
	IsService    bool   `json:"is_service"`
	ProviderType string `json:"provider_type"`
	ProviderID   string `json:"provider_id"`
	PublicKey    string `json:"public_key,omitempty"`
}

// NewUser are the fields of a new user: exactly one of password and public key (RSA, PEM). A public key makes it a
// service account.
type NewUser struct {
	Description string
	Password    string
	PublicKey   string
}

// UserChange changes the fields that are not nil.
type UserChange struct {
	Description *string
	Password    *string
}

var (
	uidPattern = regexp.MustCompile(`^[a-zA-Z0-9\-_@.]{1,96}$`)

	errUID = fmt.Errorf("user id: use 1 to 96 letters, digits, - _ @ . and not anonymous: %w",
		errdefs.ErrInvalidArgument)
	errPublicKey = fmt.Errorf("public key: use a PEM block PUBLIC KEY with an RSA key of 2048 to 8192 bits: %w",
		errdefs.ErrInvalidArgument)
)

func checkUID(uid string) error {
	if !uidPattern.MatchString(uid) || uid == "anonymous" || uid == "." || uid == ".." {
		return errUID
	}
	return nil
}

func checkPassword(p string) error {
	if utf8.RuneCountInString(p) < minPassword || len(p) > maxPassword {
		return fmt.Errorf("password: use %d characters to %d bytes: %w", minPassword, maxPassword, errdefs.ErrInvalidArgument)
	}
	return nil
}

func checkDescription(d string) error {
	if len(d) > maxDescription {
		return fmt.Errorf("description of %d bytes, limit %d: %w", len(d), maxDescription, errdefs.ErrInvalidArgument)
	}
	return nil
}

func parsePublicKey(text string) (*rsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 2 {
		return nil, errPublicKey
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok || key.N.BitLen() < 2048 || key.N.BitLen() > 8192 {
		return nil, errPublicKey
	}
	return key, nil
}

func newEpoch() string { return rand.Text() }

// CreateUser creates a user. ErrAlreadyExists if there is one of that id.
func (d *Directory) CreateUser(ctx context.Context, uid string, n NewUser) error {
	if err := errors.Join(checkUID(uid), checkDescription(n.Description)); err != nil {
		return err
	}
	a := account{Description: n.Description, Created: time.Now().UTC(), Epoch: newEpoch()}
	switch {
	case (n.Password == "") == (n.PublicKey == ""):
		return fmt.Errorf("user %s: give exactly one of password and public_key: %w", uid, errdefs.ErrInvalidArgument)
	case n.PublicKey != "":
		key, err := parsePublicKey(n.PublicKey)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return fmt.Errorf("user %s: public key: %w", uid, err)
		}
		a.PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})) // nothing but the key
	default:
		if err := checkPassword(n.Password); err != nil {
			return err
		}
		hash, err := d.hasher.hash(ctx, n.Password)
		if err != nil {
			return err
		}
		a.PasswordHash = hash
	}
	return d.insertUser(ctx, uid, a)
}

func (d *Directory) insertUser(ctx context.Context, uid string, a account) error {
	if len(d.view.allUsers()) >= MaxUsers {
		return fmt.Errorf("user %s: there are %d, the limit: %w", uid, MaxUsers, errdefs.ErrResourceExhausted)
	}
	put, err := users.Put(uid, a)
	if err != nil {
		return fmt.Errorf("user %s: %w", uid, err)
	}
	err = d.commitAndWait(ctx, []store.Guard{users.Absent(uid)}, put)
	if errors.Is(err, store.ErrConflict) {
		err = errdefs.ErrAlreadyExists
	}
	if err != nil {
		return fmt.Errorf("user %s: %w", uid, err)
	}
	d.log.Info("user created", "user", uid)
	return nil
}

// ChangeUser changes a user. ErrNotFound if there is none. Tokens stay good: RevokeUser ends them.
func (d *Directory) ChangeUser(ctx context.Context, uid string, c UserChange) error {
	var hash string
	if c.Description != nil {
		if err := checkDescription(*c.Description); err != nil {
			return err
		}
	}
	if c.Password != nil {
		if err := checkPassword(*c.Password); err != nil {
			return err
		}
		if a, ok := d.view.user(uid); ok && a.PublicKey != "" {
			return fmt.Errorf("user %s: a service account has a public key and no password: %w", uid, errdefs.ErrInvalidArgument)
		}
		var err error
		if hash, err = d.hasher.hash(ctx, *c.Password); err != nil {
			return err
		}
	}
	return d.updateUser(ctx, uid, func(a *account) {
		if c.Description != nil {
			a.Description = *c.Description
		}
		if hash != "" {
			a.PasswordHash = hash
		}
	})
}

// DeleteUser removes a user and ends its tokens. ErrNotFound if there is none.
func (d *Directory) DeleteUser(ctx context.Context, uid string) error {
	err := d.commitAndWait(ctx, []store.Guard{users.Exists(uid)}, users.Delete(uid))
	if errors.Is(err, store.ErrConflict) {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("user %.80q: %w", uid, err)
	}
	d.log.Info("user deleted", "user", uid)
	return nil
}

// Users lists users, or only service accounts, by id.
func (d *Directory) Users(services bool) []User {
	all := []User{}
	for uid, a := range d.view.allUsers() {
		if u := a.user(uid); u.IsService == services {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b User) int { return cmp.Compare(a.UID, b.UID) })
	return all
}

// User returns one user, or ErrNotFound.
func (d *Directory) User(uid string) (User, error) {
	a, ok := d.view.user(uid)
	if !ok {
		return User{}, fmt.Errorf("user %.80q: %w", uid, errdefs.ErrNotFound)
	}
	return a.user(uid), nil
}

func (a account) user(uid string) User {
	return User{
		UID: uid, URL: "/acs/api/v1/users/" + url.PathEscape(uid), Description: a.Description,
		IsService: a.PublicKey != "", ProviderType: "internal", PublicKey: a.PublicKey,
	}
}

// updateUser reads, changes and writes an account, up to commitTries times if other writers interfere.
func (d *Directory) updateUser(ctx context.Context, uid string, change func(*account)) error {
	var err error
	for range commitTries {
		var row store.Row[account]
		if row, err = users.Get(ctx, d.store, uid); err != nil {
			break
		}
		change(&row.Value)
		var put store.Op
		if put, err = users.Put(uid, row.Value); err != nil {
			break
		}
		err = d.commitAndWait(ctx, []store.Guard{users.Unchanged(uid, row.Revision)}, put)
		if !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("user %.80q: %w", uid, err)
	}
	return nil
}
