package identity

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/marinaos/marina/internal/store"
	"github.com/marinaos/marina/internal/store/memory"
)

const testDatacenter = "dc-1"

// start opens a directory and runs it until the test ends.
func start(t testing.TB, st store.Store, root *RootKey) *Directory {
	t.Helper()
	d, err := Open(t.Context(), Config{Datacenter: testDatacenter}, st, root,
		slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want canceled", err)
		}
	})
	return d
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ended(p *Principal) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

func TestTokenIsGoodOnEveryMasterAtOnceAndEndsOnAll(t *testing.T) {
	st, root := memory.New(), testRootKey(t)
	synctest.Test(t, func(t *testing.T) {
		a, b := start(t, st, root), start(t, st, root)
		for name, end := range map[string]func(id string) error{
			"revoked":      func(id string) error { return a.Revoke(t.Context(), id) },
			"user revoked": func(string) error { return a.RevokeUser(t.Context(), "ann") },
			"user deleted": func(string) error { return a.DeleteUser(t.Context(), "ann") },
			"user replaced": func(string) error {
				if err := a.DeleteUser(t.Context(), "ann"); err != nil {
					return err
				}
				return a.CreateUser(t.Context(), "ann", NewUser{Password: "secret"})
			},
		} {
			if err := a.CreateUser(t.Context(), "ann", NewUser{Password: "secret"}); err != nil &&
				!errors.Is(err, errdefs.ErrAlreadyExists) {
				t.Fatal(err)
			}
			token := must(a.Issue(t.Context(), "ann", time.Hour, ""))(t)
			other := must(a.IssueRoot(t.Context(), time.Hour, ""))(t)
			streams := []*Principal{must(a.Verify(t.Context(), token.Secret))(t), must(b.Verify(t.Context(), token.Secret))(t)}
			stays := must(b.Verify(t.Context(), other.Secret))(t)
			began := time.Now()
			if err := end(token.ID); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			synctest.Wait()
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s: took %v, want at most 2s", name, took)
			}
			for i, p := range streams {
				if !ended(p) || !errors.Is(p.Err(), errdefs.ErrUnauthenticated) {
					t.Errorf("%s: stream on master %d goes on, %v", name, i, p.Err())
				}
			}
			if ended(stays) {
				t.Errorf("%s: another user's stream ended", name)
			}
			for i, d := range []*Directory{a, b} {
				if p, err := d.Verify(t.Context(), token.Secret); !errors.Is(err, errdefs.ErrUnauthenticated) {
					t.Errorf("%s: master %d still takes the token: %v, %v", name, i, p, err)
				}
			}
		}
	})
}

func TestRevocationOutlivesRestartAndReconnect(t *testing.T) {
	st, root := memory.New(), testRootKey(t)
	synctest.Test(t, func(t *testing.T) {
		a := start(t, st, root)
		good, bad := must(a.IssueRoot(t.Context(), 0, ""))(t), must(a.IssueRoot(t.Context(), 0, ""))(t)
		if err := a.Revoke(t.Context(), bad.ID); err != nil {
			t.Fatal(err)
		}
		if err := a.Revoke(t.Context(), bad.ID); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("second revocation: %v, want not found", err)
		}
		b := start(t, st, testReload(t, root))
		if _, err := b.Verify(t.Context(), good.Secret); err != nil {
			t.Errorf("good token after a restart: %v", err)
		}
		if _, err := b.Verify(t.Context(), bad.Secret); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("revoked token after a restart: %v, want unauthenticated", err)
		}
	})
}

// testReload is the same root key, as another process reads it.
func testReload(t testing.TB, k *RootKey) *RootKey {
	t.Helper()
	c := *k
	return &c
}

func TestTokenEndsWhenItExpires(t *testing.T) {
	st, root := memory.New(), testRootKey(t)
	synctest.Test(t, func(t *testing.T) {
		d := start(t, st, root)
		token := must(d.IssueRoot(t.Context(), time.Hour, ""))(t)
		p := must(d.Verify(t.Context(), token.Secret))(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		if ended(p) {
			t.Error("stream ended before the skew that clocks are allowed")
		}
		time.Sleep(skew)
		synctest.Wait()
		if !ended(p) || !strings.Contains(p.Err().Error(), "expired") {
			t.Errorf("stream of an expired token goes on: %v", p.Err())
		}
		if _, err := d.Verify(t.Context(), token.Secret); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("expired token: %v, want unauthenticated", err)
		}
		if got := d.List(""); len(got) != 0 {
			t.Errorf("list holds expired tokens: %v", got)
		}
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		snap := must(st.Snapshot(t.Context(), tokens.Prefix()))(t)
		if len(snap.Items) != 0 {
			t.Errorf("%d rows of expired tokens are left", len(snap.Items))
		}
	})
}

func TestLoginsMakeRoomAndAskedForTokensStay(t *testing.T) {
	st, root := memory.New(), testRootKey(t)
	synctest.Test(t, func(t *testing.T) {
		d := start(t, st, root)
		if err := d.CreateUser(t.Context(), "ann", NewUser{Password: "secret"}); err != nil {
			t.Fatal(err)
		}
		asked := must(d.Issue(t.Context(), "ann", 0, "asked for"))(t)
		var first Issued
		for i := range MaxTokens {
			issued := must(d.issueToken(t.Context(), "ann", 0, "", true))(t)
			if i == 0 {
				first = issued
			}
			time.Sleep(time.Second)
		}
		if _, err := d.Verify(t.Context(), first.Secret); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("oldest login: %v, want pushed out", err)
		}
		if _, err := d.Verify(t.Context(), asked.Secret); err != nil {
			t.Errorf("asked for token: %v, want good", err)
		}
		if _, err := d.Issue(t.Context(), "ann", 0, "one more"); !errors.Is(err, errdefs.ErrResourceExhausted) {
			t.Errorf("token over the limit: %v, want resource exhausted", err)
		}
	})
}

func TestWithoutStoreKnownTokensStayGood(t *testing.T) {
	st, root := memory.New(), testRootKey(t)
	d := start(t, st, root)
	token := must(d.IssueRoot(t.Context(), 0, ""))(t)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Verify(t.Context(), token.Secret); err != nil {
		t.Errorf("known token without store: %v", err)
	}
	if _, err := d.Issue(t.Context(), RootUID, 0, ""); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("issue without store: %v, want unavailable", err)
	}
	if err := d.Revoke(t.Context(), token.ID); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("revoke without store: %v, want unavailable", err)
	}
}

func TestForeignRootKeyStopsTheStart(t *testing.T) {
	st := memory.New()
	start(t, st, testRootKey(t))
	other := must(LoadRootKey(filepath.Join(t.TempDir(), "other")))(t)
	_, err := Open(t.Context(), Config{Datacenter: testDatacenter}, st, other, slog.New(slog.DiscardHandler))
	if !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("open with another root key: %v, want failed precondition", err)
	}
}

func TestCredential(t *testing.T) {
	for name, c := range map[string]struct {
		auth, cookies []string
		token         string
		cookie, fails bool
	}{
		"none":                    {},
		"token=":                  {auth: []string{"token=x.y.z"}, token: "x.y.z"},
		"scheme before token=":    {auth: []string{"Bearer token=x"}, token: "x"},
		"bearer":                  {auth: []string{"bEARER  x.y.z "}, token: "x.y.z"},
		"basic":                   {auth: []string{"Basic eA=="}, fails: true},
		"two headers":             {auth: []string{"token=x", "token=y"}, fails: true},
		"cookie":                  {cookies: []string{"x"}, token: "x", cookie: true},
		"header beats cookie":     {auth: []string{"token=x"}, cookies: []string{"y"}, token: "x"},
		"bad header beats cookie": {auth: []string{"Basic x"}, cookies: []string{"y"}, fails: true},
		"two cookies":             {cookies: []string{"x", "y"}, fails: true},
	} {
		r := must(http.NewRequest("GET", "/", nil))(t)
		for _, a := range c.auth {
			r.Header.Add("Authorization", a)
		}
		for _, v := range c.cookies {
			r.AddCookie(&http.Cookie{Name: AuthCookie, Value: v})
		}
		token, cookie, err := Credential(r)
		if token != c.token || cookie != c.cookie || (err != nil) != c.fails {
			t.Errorf("%s: got %q, %v, %v, want %q, %v, error %v", name, token, cookie, err, c.token, c.cookie, c.fails)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	d := start(b, memory.New(), testRootKey(b))
	token := must(d.IssueRoot(b.Context(), 0, ""))(b)
	for b.Loop() {
		if _, err := d.Verify(b.Context(), token.Secret); err != nil {
			b.Fatal(err)
		}
	}
}
