package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/marinaos/marina/internal/cli/exit"
	"github.com/marinaos/marina/internal/durable"
)

// Options is what a command line says of the datacenter it is for. The zero value finds the one of this machine or of the
// saved login.
type Options struct {
	URL   string // https://host:8443; empty: find one
	Token string // empty: MARINA_TOKEN, then the one of where the address is from
	CA    string // file with the datacenter's CA certificate; empty: that of the login, else the machine's
	State string // the state folder of the datacenter on this machine
}

// Account is what `marina login` saves, and what root gets from the admin socket.
type Account struct {
	URL   string    `json:"url"`
	Token string    `json:"token"`
	CA    string    `json:"ca"` // PEM
	Until time.Time `json:"until,omitzero"`
}

// account finds whom to talk to, in the order of the package's comment.
func (o *Options) account(ctx context.Context) (Account, error) {
	token := cmp.Or(o.Token, os.Getenv("MARINA_TOKEN"))
	saved, savedErr := loadLogin()
	if o.URL != "" {
		a := Account{URL: strings.TrimRight(o.URL, "/"), Token: token}
		if savedErr == nil && saved.URL == a.URL {
			a.CA, a.Token = saved.CA, cmp.Or(token, saved.Token)
		}
		return a, nil
	}
	local, err := o.local(ctx)
	if err == nil {
		local.Token = cmp.Or(token, local.Token)
		return local, nil
	}
	if savedErr == nil {
		saved.Token = cmp.Or(token, saved.Token)
		return saved, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return Account{}, &exit.Error{Code: exit.Denied, Message: "the datacenter on this machine gives its first token to root only",
			Next: "sudo marina token create, then marina login URL --token TOKEN"}
	}
	return Account{}, &exit.Error{Code: exit.Unreachable, Message: "no datacenter found: none runs on this machine and no login is saved",
		Next: "marina up, or marina login https://HOST:8443 --token TOKEN"}
}

// LoginFile is where `marina login` saves an account. Without a folder of the user's own it is an error.
func LoginFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &exit.Error{Code: exit.Failed, Message: fmt.Sprintf("there is no folder of yours to keep a login in: %v", err),
			Next: "set HOME, or give MARINA_URL, MARINA_TOKEN and MARINA_CA to every command"}
	}
	return filepath.Join(dir, "marina", "login.json"), nil
}

func loadLogin() (a Account, err error) {
	file, err := LoginFile()
	if err != nil {
		return a, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(b, &a)
}

// Save writes an account so that only its owner can read it.
func (a Account) Save(file string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durable.ReplaceFile(file, b, 0o600)
}
