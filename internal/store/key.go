package store

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

const upperHex = "0123456789ABCDEF"

// Key builds a key out of segments, which may contain any bytes: each is escaped, then they are joined by slashes.
// Different segments always give different keys.
func Key(first string, rest ...string) string {
	var b strings.Builder
	escape(&b, first)
	for _, s := range rest {
		b.WriteByte('/')
		escape(&b, s)
	}
	return b.String()
}

// Prefix builds the prefix of all keys that have more segments after these. Prefix("apps") matches Key("apps", "web")
// and never Key("apps2", "web") or Key("apps").
func Prefix(first string, rest ...string) string { return Key(first, rest...) + "/" }

// Segments splits a key into the segments of Key. A key that Key cannot have built is an errdefs.ErrInvalidArgument.
func Segments(key string) ([]string, error) {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		s, err := unescape(p)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
		parts[i] = s
	}
	return parts, nil
}

// LeaderKey returns the key of the row of an election's leader. Its value is the leader's identity. Deleting the row
// deposes the leader.
func LeaderKey(election string) string { return Key("leader", election) }

// plain reports whether a byte stands for itself in a key.
func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '/' && c != '%' }

func escape(b *strings.Builder, s string) {
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
}

func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", fmt.Errorf("segment %q ends inside an escape: %w", s, errdefs.ErrInvalidArgument)
			}
			hi, lo := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
			if hi < 0 || lo < 0 || plain(byte(hi<<4|lo)) {
				return "", fmt.Errorf("segment %q has an escape that no key has: %w", s, errdefs.ErrInvalidArgument)
			}
			c = byte(hi<<4 | lo)
			i += 2
		} else if !plain(c) {
			return "", fmt.Errorf("segment %q has a byte that no key has: %w", s, errdefs.ErrInvalidArgument)
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}
