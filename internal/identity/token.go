package identity

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// Audience is the aud claim of every token.
	Audience = "marina"

	// MaxTokenBytes is the longest token that is parsed.
	MaxTokenBytes = 8 << 10

	// skew is the allowed difference between the clocks of two masters; a token is good that much longer.
	skew = time.Minute

	signingKeyBits = 2048
)

// reservations are the reservations of a token. All of them are required.
type claims struct {
	UID string `json:"uid"`
	jwt.RegisteredClaims
}

// Validate is called by the parser after its own checks.
func (c *claims) Validate() error {
	if c.UID == "" || c.ID == "" || c.IssuedAt == nil {
		return fmt.Errorf("token: uid, jti and iat are required: %w", errdefs.ErrUnauthenticated)
	}
	return nil
}

// signer signs and parses the tokens of one datacenter with one RSA key. It does not check revocation.
type signer struct {
	datacenter string
	key        crypto.Signer
	public     *rsa.PublicKey
	kid        string
	parser     *jwt.Parser
}

func newSigner(datacenter string, key crypto.Signer) (*signer, error) {
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("token key: a %T, want RSA: %w", key.Public(), errdefs.ErrDataLoss)
	}
	return &signer{datacenter: datacenter, key: key, public: public, kid: newJWK(public).KeyID, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}),
		jwt.WithIssuer(datacenter),
		jwt.WithAudience(Audience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(skew),
		jwt.WithStrictDecoding(),
	)}, nil
}

func (s *signer) sign(id, uid string, issued, expires time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, &claims{UID: uid, RegisteredClaims: jwt.RegisteredClaims{
		ID:        id,
		Issuer:    s.datacenter,
		Audience:  jwt.ClaimStrings{Audience},
		IssuedAt:  jwt.NewNumericDate(issued),
		ExpiresAt: jwt.NewNumericDate(expires),
	}})
	t.Header["kid"] = s.kid
	signed, err := t.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	return signed, nil
}

// parse returns the reservations of a token that this datacenter signed and that is in its time. Any other is
// ErrUnauthenticated. Headers that name or contain a key are refused.
func (s *signer) parse(token string) (*claims, error) {
	if len(token) > MaxTokenBytes {
		return nil, fmt.Errorf("token of %d bytes, limit %d: %w", len(token), MaxTokenBytes, errdefs.ErrUnauthenticated)
	}
	c := new(claims)
	_, err := s.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
		for name := range t.Header {
			if !slices.Contains([]string{"alg", "typ", "kid"}, name) {
				return nil, fmt.Errorf("header %.40q is not allowed", name)
			}
		}
		if t.Header["typ"] != "JWT" || t.Header["kid"] != s.kid {
			return nil, errors.New("typ or kid is not one of ours")
		}
		return s.public, nil
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, fmt.Errorf("token has expired: %w", errdefs.ErrUnauthenticated)
	case err != nil:
		return nil, fmt.Errorf("token is not valid here: %w: %w", err, errdefs.ErrUnauthenticated)
	}
	return c, nil
}

// jwk is a public key in the form of /auth/jwks.
type jwk struct {
	KeyID     string `json:"kid"`
	KeyType   string `json:"kty"`
	N         string `json:"n"`
	E         string `json:"e"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

func newJWK(k *rsa.PublicKey) jwk {
	e := []byte{byte(k.E >> 24), byte(k.E >> 16), byte(k.E >> 8), byte(k.E)}
	for len(e) > 1 && e[0] == 0 {
		e = e[1:]
	}
	j := jwk{KeyType: "RSA", N: base64.RawURLEncoding.EncodeToString(k.N.Bytes()),
		E: base64.RawURLEncoding.EncodeToString(e), Algorithm: "RS256", Use: "sig"}
	sum := sha256.Sum256([]byte(j.E + j.N + j.KeyType)) // DC/OS's key ids
	j.KeyID = hex.EncodeToString(sum[:])
	return j
}

// serviceClaims are the reservations of a service account's login token, which it signed itself. Only uid and exp are
// required.
type serviceClaims struct {
	UID string `json:"uid"`
	jwt.RegisteredClaims
}

// verifyService checks a login token against its account's public key.
func verifyService(token, uid string, public *rsa.PublicKey) error {
	if len(token) > MaxTokenBytes {
		return fmt.Errorf("login token of %d bytes, limit %d: %w", len(token), MaxTokenBytes, errdefs.ErrUnauthenticated)
	}
	var c serviceClaims
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithLeeway(skew),
	).ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return public, nil })
	if err != nil || c.UID != uid {
		return fmt.Errorf("login token of %s: %w", uid, errdefs.ErrUnauthenticated)
	}
	return nil
}
