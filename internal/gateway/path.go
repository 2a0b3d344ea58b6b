package gateway

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// maxPath limits a request's path, in bytes as sent.
const maxPath = 8 << 10

// canonicalPath returns the canonical form of an escaped path, by which requests are routed, allowed and passed on:
// repeated slashes are merged, escapes stay as they were sent. A path that two parsers could read differently is
// refused with ErrInvalidArgument: dot segments, escaped slashes and backslashes, control characters, in any
// spelling. Canonical paths stay as they are.
func canonicalPath(escaped string) (string, error) {
	switch {
	case len(escaped) > maxPath:
		return "", fmt.Errorf("path of %d bytes: limit %d: %w", len(escaped), maxPath, errdefs.ErrInvalidArgument)
	case !strings.HasPrefix(escaped, "/"):
		return "", fmt.Errorf("path %.80q does not start with a slash: %w", escaped, errdefs.ErrInvalidArgument)
	}
	var out strings.Builder
	out.Grow(len(escaped))
	for segment := range strings.SplitSeq(escaped, "/") {
		if segment == "" {
			continue
		}
		if err := checkSegment(segment); err != nil {
			return "", err
		}
		out.WriteByte('/')
		out.WriteString(segment)
	}
	if strings.HasSuffix(escaped, "/") {
		out.WriteByte('/')
	}
	return out.String(), nil
}

func checkSegment(segment string) error {
	plain, err := url.PathUnescape(segment)
	if err != nil {
		return fmt.Errorf("path segment %.80q: %w: %w", segment, err, errdefs.ErrInvalidArgument)
	}
	// Java servers cut a segment at its semicolon before they look for dots.
	if name, _, _ := strings.Cut(plain, ";"); name == "." || name == ".." {
		return fmt.Errorf("path segment %.80q: dot segments are not resolved here, send the path they lead to: %w",
			segment, errdefs.ErrInvalidArgument)
	}
	if i := strings.IndexFunc(plain, func(r rune) bool { return r == '/' || r == '\\' || r < ' ' || r == 0x7f }); i >= 0 {
		return fmt.Errorf("path segment %.80q: %q may not stand in it: %w", segment, plain[i], errdefs.ErrInvalidArgument)
	}
	return nil
}

// cutPrefix returns the path without the prefix if that ends at a segment's end; rest is empty or starts with a slash.
func cutPrefix(path, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, strings.TrimSuffix(prefix, "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}

// withPath returns a copy of u with the escaped path, which must be a canonical one or a part of one.
func withPath(u *url.URL, escaped string) *url.URL {
	c := *u
	c.RawPath = escaped
	c.Path, _ = url.PathUnescape(escaped) // canonicalPath has checked it
	return &c
}
