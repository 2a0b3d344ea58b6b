package identity

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"
)

var testKeys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var ks [2]*rsa.PrivateKey
	for i := range ks {
		ks[i], _ = rsa.GenerateKey(rand.Reader, signingKeyBits)
	}
	return ks
})

func testSigner(t testing.TB) *signer {
	t.Helper()
	return must(newSigner(testDatacenter, testKeys()[0]))(t)
}

func goodHeader(s *signer) map[string]any {
	return map[string]any{"alg": "RS256", "typ": "JWT", "kid": s.kid}
}

func goodClaims() map[string]any {
	now := time.Now().Unix()
	return map[string]any{"uid": "ann", "jti": "1", "iss": testDatacenter, "aud": Audience, "iat": now, "exp": now + 3600}
}

// forge signs any header and reservations by any method.
func forge(t testing.TB, header, claims map[string]any, method jwt.SigningMethod, key any) string {
	t.Helper()
	h, c := must(json.Marshal(header))(t), must(json.Marshal(claims))(t)
	text := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	sig, err := method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func with(m map[string]any, kv ...any) map[string]any {
	m = maps.Clone(m)
	for i := 0; i < len(kv); i += 2 {
		if kv[i+1] == nil {
			delete(m, kv[i].(string))
		} else {
			m[kv[i].(string)] = kv[i+1]
		}
	}
	return m
}

func TestForgedTokensAreRefused(t *testing.T) {
	s, ours, theirs := testSigner(t), testKeys()[0], testKeys()[1]
	h, c := goodHeader(s), goodClaims()
	good := forge(t, h, c, jwt.SigningMethodRS256, ours)
	if got, err := s.parse(good); err != nil || got.UID != "ann" {
		t.Fatalf("good token: %v, %v", got, err)
	}
	der := must(x509.MarshalPKIXPublicKey(&ours.PublicKey))(t)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	parts := strings.Split(good, ".")
	rs := func(h, c map[string]any) string { return forge(t, h, c, jwt.SigningMethodRS256, ours) }
	now := time.Now().Unix()
	forged := map[string]string{
		"empty":                "",
		"dots":                 "..",
		"one part":             parts[0],
		"two parts":            parts[0] + "." + parts[1],
		"four parts":           good + ".x",
		"five parts (JWE)":     good + ".x.y",
		"no signature":         parts[0] + "." + parts[1] + ".",
		"signature of another": parts[0] + "." + parts[1] + "." + strings.Split(rs(h, with(c, "uid", "bob")), ".")[2],
		"claims of another":    parts[0] + "." + strings.Split(rs(h, with(c, "uid", "bob")), ".")[1] + "." + parts[2],
		"padded base64":        good + "==",
		"standard base64":      strings.NewReplacer("-", "+", "_", "/").Replace(good) + "=",
		"line break in it":     good[:10] + "\n" + good[10:],
		"another key":          forge(t, h, c, jwt.SigningMethodRS256, theirs),
		"alg none":             forge(t, with(h, "alg", "none"), c, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"alg None":             forge(t, with(h, "alg", "None"), c, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"alg missing":          rs(with(h, "alg", nil), c),
		"alg a number":         rs(with(h, "alg", 256), c),
		"HS256 by public PEM":  forge(t, with(h, "alg", "HS256"), c, jwt.SigningMethodHS256, public),
		"HS256 by public DER":  forge(t, with(h, "alg", "HS256"), c, jwt.SigningMethodHS256, der),
		"HS256 by modulus":     forge(t, with(h, "alg", "HS256"), c, jwt.SigningMethodHS256, ours.N.Bytes()),
		"HS256 by nothing":     forge(t, with(h, "alg", "HS256"), c, jwt.SigningMethodHS256, []byte{}),
		"HS512":                forge(t, with(h, "alg", "HS512"), c, jwt.SigningMethodHS512, public),
		"RS384 by our key":     forge(t, with(h, "alg", "RS384"), c, jwt.SigningMethodRS384, ours),
		"RS512 by our key":     forge(t, with(h, "alg", "RS512"), c, jwt.SigningMethodRS512, ours),
		"PS256 by our key":     forge(t, with(h, "alg", "PS256"), c, jwt.SigningMethodPS256, ours),
		"header says RS384":    rs(with(h, "alg", "RS384"), c),
		"kid missing":          rs(with(h, "kid", nil), c),
		"kid unknown":          rs(with(h, "kid", "x"), c),
		"kid empty":            rs(with(h, "kid", ""), c),
		"kid a path":           rs(with(h, "kid", "../../dev/null"), c),
		"kid a list":           rs(with(h, "kid", []string{s.kid}), c),
		"typ missing":          rs(with(h, "typ", nil), c),
		"typ at+jwt":           rs(with(h, "typ", "at+jwt"), c),
		"jku":                  rs(with(h, "jku", "https://evil.example/jwks"), c),
		"x5u":                  rs(with(h, "x5u", "https://evil.example/cert"), c),
		"x5c":                  rs(with(h, "x5c", []string{"AAAA"}), c),
		"jwk of the forger":    forge(t, with(h, "jwk", newJWK(&theirs.PublicKey)), c, jwt.SigningMethodRS256, theirs),
		"crit":                 rs(with(h, "crit", []string{"b64"}, "b64", false), c),
		"zip":                  rs(with(h, "zip", "DEF"), c),
		"cty JWT":              rs(with(h, "cty", "JWT"), c),
		"uid missing":          rs(h, with(c, "uid", nil)),
		"uid empty":            rs(h, with(c, "uid", "")),
		"uid a number":         rs(h, with(c, "uid", 0)),
		"uid a list":           rs(h, with(c, "uid", []string{"ann"})),
		"jti missing":          rs(h, with(c, "jti", nil)),
		"exp missing":          rs(h, with(c, "exp", nil)),
		"exp a word":           rs(h, with(c, "exp", "never")),
		"exp zero":             rs(h, with(c, "exp", 0)),
		"exp past":             rs(h, with(c, "exp", now-61)),
		"iat missing":          rs(h, with(c, "iat", nil)),
		"iat in the future":    rs(h, with(c, "iat", now+120)),
		"nbf in the future":    rs(h, with(c, "nbf", now+120)),
		"iss missing":          rs(h, with(c, "iss", nil)),
		"iss another":          rs(h, with(c, "iss", "dc-2")),
		"aud missing":          rs(h, with(c, "aud", nil)),
		"aud another":          rs(h, with(c, "aud", "other")),
		"too long":             rs(h, with(c, "pad", strings.Repeat("x", MaxTokenBytes))),
		"10 MB of dots":        strings.Repeat(".", 10<<20),
		"10 MB header":         strings.Repeat("e", 10<<20) + ".e30.x",
		"header not JSON":      "e3s." + parts[1] + "." + parts[2],
		"header an array":      base64.RawURLEncoding.EncodeToString([]byte("[]")) + "." + parts[1] + "." + parts[2],
	}
	null := []byte(`{"uid":null,"jti":"1","iss":"dc-1","aud":"marina","iat":1,"exp":99999999999}`)
	text := parts[0] + "." + base64.RawURLEncoding.EncodeToString(null)
	sig := must(jwt.SigningMethodRS256.Sign(text, ours))(t)
	forged["uid null"] = text + "." + base64.RawURLEncoding.EncodeToString(sig)
	for name, token := range forged {
		began := time.Now()
		if got, err := s.parse(token); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("%s: got %+v, %v, want unauthenticated", name, got, err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
	t.Logf("%d forged tokens refused", len(forged))
}

func TestOnlyTheFullSetOfClaimsPasses(t *testing.T) {
	s := testSigner(t)
	names := []string{"uid", "jti", "iss", "aud", "iat", "exp"}
	rapid.Check(t, func(rt *rapid.T) {
		have := rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID[string]).Draw(rt, "claims")
		all, c := goodClaims(), map[string]any{}
		for _, n := range have {
			c[n] = all[n]
		}
		_, err := s.parse(forge(t, goodHeader(s), c, jwt.SigningMethodRS256, testKeys()[0]))
		if (err == nil) != (len(have) == len(names)) {
			rt.Fatalf("claims %v: %v", have, err)
		}
	})
}

func TestClocksMayDifferByTheSkew(t *testing.T) {
	s := testSigner(t)
	now := time.Now().Unix()
	for name, c := range map[string]map[string]any{
		"just expired":     with(goodClaims(), "exp", now-50),
		"issued in future": with(goodClaims(), "iat", now+50),
	} {
		if _, err := s.parse(forge(t, goodHeader(s), c, jwt.SigningMethodRS256, testKeys()[0])); err != nil {
			t.Errorf("%s: %v, want good within the skew", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := testSigner(f)
	good := forge(f, goodHeader(s), goodClaims(), jwt.SigningMethodRS256, testKeys()[0])
	for _, seed := range []string{good, "", "..", "a.b.c", "e30.e30.", "eyJhbGciOiJub25lIn0.e30.",
		good[:len(good)-4], strings.Repeat(".", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		c, err := s.parse(token)
		if err != nil {
			if !errors.Is(err, errdefs.ErrUnauthenticated) {
				t.Fatalf("parse(%q): %v, want unauthenticated", token, err)
			}
			return
		}
		if token != good || c.UID != "ann" {
			t.Fatalf("parse(%q) = %+v: a token that was never signed", token, c)
		}
	})
}
