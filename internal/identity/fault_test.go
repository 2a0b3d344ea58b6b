package identity

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

func TestRowsThatCannotBeReadAreTreatedAsAbsentAndLeft(t *testing.T) {
	st, root := memory.New(), testRootKey(t)
	d := start(t, st, root)
	token := rootPrincipal(t, d)
	other := must(d.IssueRoot(t.Context(), 0, "stays"))(t)
	spoil := []store.Op{store.Put(users.Key("ann"), []byte("{")), store.Put(tokens.Key(token.TokenID), []byte("[]"))}
	rev := must(st.Commit(t.Context(), store.Txn{Ops: spoil}))(t)
	if !d.view.waitRevision(t.Context(), rev, 10*time.Second) {
		t.Fatal("the view does not follow")
	}
	later := start(t, st, root) // reads them at its start
	for name, d := range map[string]*Directory{"followed": d, "loaded": later} {
		if _, err := d.User("ann"); !errdefs.IsNotFound(err) {
			t.Errorf("%s: user: got %v, want not found", name, err)
		}
		if n := len(d.Users(false)); n != 1 {
			t.Errorf("%s: got %d users, want root alone", name, n)
		}
		if _, err := d.Verify(t.Context(), other.Secret); err != nil {
			t.Errorf("%s: another token: %v", name, err)
		}
	}
	if !ended(token) {
		t.Error("requests of the token whose row cannot be read go on")
	}
	if err := d.CreateUser(t.Context(), "ann", NewUser{Password: "secret"}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("written over: got %v, want that there is one already", err)
	}
	if item, err := st.Get(t.Context(), users.Key("ann")); err != nil || string(item.Value) != "{" {
		t.Errorf("the row: got %q, %v, want it as it was", item.Value, err)
	}
}

func TestChangesOfUsersThatMakeNoSenseAreRefused(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	ctx := t.Context()
	for uid, n := range map[string]NewUser{"ann": {Password: "secret"}, "bot": {PublicKey: servicePEM(t)}} {
		if err := d.CreateUser(ctx, uid, n); err != nil {
			t.Fatal(err)
		}
	}
	long, short, huge := strings.Repeat("x", maxDescription+1), "four", strings.Repeat("x", maxPassword+1)
	good := "better"
	for what, tc := range map[string]struct {
		uid string
		c   UserChange
		is  func(error) bool
	}{
		"long description":              {"ann", UserChange{Description: &long}, errdefs.IsInvalidArgument},
		"short password":                {"ann", UserChange{Password: &short}, errdefs.IsInvalidArgument},
		"huge password":                 {"ann", UserChange{Password: &huge}, errdefs.IsInvalidArgument},
		"password of a service account": {"bot", UserChange{Password: &good}, errdefs.IsInvalidArgument},
		"nobody":                        {"eve", UserChange{Description: &good}, errdefs.IsNotFound},
	} {
		if err := d.ChangeUser(ctx, tc.uid, tc.c); !tc.is(err) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for what, n := range map[string]NewUser{
		"neither":          {},
		"both":             {Password: "secret", PublicKey: servicePEM(t)},
		"no key":           {PublicKey: "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"},
		"long description": {Password: "secret", Description: long},
	} {
		if err := d.CreateUser(ctx, "new", n); !errdefs.IsInvalidArgument(err) {
			t.Errorf("new user with %s: got %v, want an invalid argument", what, err)
		}
	}
	for _, uid := range []string{"", ".", "..", "anonymous", "a/b", "a b", strings.Repeat("x", 97), "ä"} {
		if err := d.CreateUser(ctx, uid, NewUser{Password: "secret"}); !errors.Is(err, errUID) {
			t.Errorf("user id %q: got %v, want %v", uid, err, errUID)
		}
	}
}

func TestANewPasswordTakesThePlaceOfTheOldAndTokensStay(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	ctx := t.Context()
	if err := d.CreateUser(ctx, "ann", NewUser{Password: "before"}); err != nil {
		t.Fatal(err)
	}
	old := must(d.Login(ctx, "192.0.2.1:1", "ann", "before", "", 0))(t)
	after := "after1"
	if err := d.ChangeUser(ctx, "ann", UserChange{Password: &after}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Login(ctx, "192.0.2.1:1", "ann", "before", "", 0); !errdefs.IsUnauthorized(err) {
		t.Errorf("the old password: got %v, want it refused", err)
	}
	if _, err := d.Login(ctx, "192.0.2.1:1", "ann", "after1", "", 0); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if _, err := d.Verify(ctx, old.Secret); err != nil {
		t.Errorf("a token of before: %v", err)
	}
}

// What is remembered of guesses is bounded, and full memory never lets anybody guess for free.
func TestFullMemoryOfGuessesRefusesStrangers(t *testing.T) {
	now := time.Now()
	th := newThrottle(time.Second, 3)
	for n := range maxThrottled {
		if wait := th.countTry(fmt.Sprint("guesser-", n), now); wait != 0 {
			t.Fatalf("guesser %d: has to wait %v", n, wait)
		}
	}
	if wait := th.countTry("stranger", now); wait <= 0 || len(th.fullAt) > maxThrottled {
		t.Errorf("a stranger: waits %v with %d remembered, want a wait and at most %d", wait, len(th.fullAt), maxThrottled)
	}
	if wait := th.countTry("guesser-7", now); wait != 0 {
		t.Errorf("one that is remembered: waits %v, want its second try", wait)
	}
	later := now.Add(time.Minute)
	if wait := th.countTry("stranger", later); wait != 0 || len(th.fullAt) != 1 {
		t.Errorf("a minute later: waits %v with %d remembered, want none and the stranger alone", wait, len(th.fullAt))
	}
	th.refundTry("stranger")
	th.refundTry("nobody")
	for n := range 4 {
		if wait := th.countTry("stranger", later); (wait > 0) != (n == 3) {
			t.Errorf("try %d after a refund: waits %v", n, wait)
		}
	}
}

func TestOnlyADeadDaemonsSocketIsReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "token.sock")
	l := must(listenSocket(path))(t)
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a daemon that is killed leaves it
	l.Close()
	again, err := listenSocket(path)
	if err != nil {
		t.Fatalf("a dead daemon's: %v", err)
	}
	if _, err := listenSocket(path); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a living daemon's: got %v, want that it exists", err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(path); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a file: got %v, want that it exists", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("the file: got %q, %v, want it as it was", b, err)
	}
}

func TestRevokingWhatIsNotThereSaysSo(t *testing.T) {
	d := start(t, memory.New(), testRootKey(t))
	root := rootPrincipal(t, d)
	issued := must(d.IssueRoot(t.Context(), 0, "to go"))(t)
	p := must(d.Verify(t.Context(), issued.Secret))(t)
	gone := make(chan struct{})
	p.AfterFunc(func() { close(gone) })
	stop := p.AfterFunc(func() { t.Error("called although it was stopped") })
	if !stop() {
		t.Error("could not be stopped")
	}
	for _, want := range []int{http.StatusNoContent, http.StatusNotFound} {
		if w := call(t, d, root, "DELETE", Base+"/tokens/"+issued.ID, ""); w.Code != want {
			t.Errorf("got %d %s, want %d", w.Code, w.Body, want)
		}
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("work of a revoked token was not ended")
	}
	if w := call(t, d, root, "DELETE", Base+"/tokens?uid=nobody", ""); w.Code != http.StatusBadRequest {
		t.Errorf("tokens of nobody: got %d %s, want 400", w.Code, w.Body)
	}
	if w := call(t, d, root, "DELETE", Base+"/tokens", ""); w.Code != http.StatusBadRequest {
		t.Errorf("tokens of everybody: got %d %s, want 400", w.Code, w.Body)
	}
}
