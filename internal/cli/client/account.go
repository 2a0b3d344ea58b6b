package client

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/marinaos/marina/internal/cli/exit"
)

// Options names the datacenter of a command line. The zero value finds the one of this machine or of
// the saved login.
type Options struct {
	URL   string // https://host:8443; empty: find one
	Token string // empty: MARINA_TOKEN, then the one of where the address is from
	CA    string // file with the datacenter's CA certificate; empty: that of the login, else the machine's
	State string // the state directory of the datacenter on this machine
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
		return Account{}, &exit.Error{Code: exit.Denied,
			Message: "the datacenter on this machine gives its first token to root only",
			Next:    "sudo marina token create, then marina login URL --token TOKEN"}
	}
	return Account{}, &exit.Error{Code: exit.Unreachable,
		Message: "no datacenter found: none runs on this machine and no login is saved",
		Next:    "marina up, or marina login https://HOST:8443 --token TOKEN"}
}
