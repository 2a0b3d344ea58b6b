package gateway

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestCanonicalPath(t *testing.T) {
	for in, want := range map[string]string{
		"/":                                  "/",
		"///":                                "/",
		"/service////marathon///v2/apps":     "/service/marathon/v2/apps",
		"/service/marathon/v2/apps//foo":     "/service/marathon/v2/apps/foo",
		"/v2/apps//":                         "/v2/apps/",
		"/a%20b//%C3%A9":                     "/a%20b/%C3%A9",
		"/acs/api/v1/acls/a%252Fb":           "/acs/api/v1/acls/a%252Fb",
		"/...":                               "/...",
		"/.well-known/x..y":                  "/.well-known/x..y",
		"/v2/apps/::status":                  "/v2/apps/::status",
		"/" + strings.Repeat("a", maxPath-1): "/" + strings.Repeat("a", maxPath-1),
	} {
		got, err := canonicalPath(in)
		if err != nil || got != want {
			t.Errorf("canonicalPath(%.80q) = %.80q, %v, want %.80q", in, got, err, want)
		}
	}
}

func TestPathsThatParsersDisagreeOnAreRefused(t *testing.T) {
	for _, in := range []string{
		"", "*", "a/b", "/..", "/.", "/a/../b", "/a/./b", "/a/..", "/%2e%2e/x", "/.%2E/x", "/%2e", "/..;/x", "/..;a=b/x",
		"/%2e%2e%3bx/y",
		"/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, "/a%00", "/a%0d%0ab", "/a%7f", "/%zz", "/%", "/%2",
		"/" + strings.Repeat("a", maxPath),
	} {
		if got, err := canonicalPath(in); err == nil {
			t.Errorf("canonicalPath(%.80q) = %.80q, want an error", in, got)
		}
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, seed := range []string{"/", "//", "/a//b/", "/a/../b", "/%2e%2e/", "/a%2Fb", "/%252e%252e/", "/..;x/",
		"/a%00b", "/é", "/%C3%A9/;a=b", "/v2/apps//foo"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := canonicalPath(in)
		if err != nil {
			return
		}
		if again, err := canonicalPath(got); err != nil || again != got {
			t.Fatalf("canonicalPath(%q) = %q, again = %q, %v: not a fixed point", in, got, again, err)
		}
		u := withPath(&url.URL{}, got)
		clean := path.Clean(u.Path)
		if strings.HasSuffix(u.Path, "/") && clean != "/" {
			clean += "/"
		}
		if u.Path != clean {
			t.Fatalf("canonicalPath(%q) = %q is %q decoded, cleans to %q", in, got, u.Path, clean)
		}
		if strings.Count(u.Path, "/") != strings.Count(got, "/") {
			t.Fatalf("canonicalPath(%q) = %q hides a slash", in, got)
		}
	})
}

func TestUnderEndsAtSegments(t *testing.T) {
	for _, c := range []struct {
		path, prefix, rest string
		ok                 bool
	}{
		{"/v2/apps", "/v2", "/apps", true},
		{"/v2", "/v2", "", true},
		{"/v2/", "/v2", "/", true},
		{"/v2x", "/v2", "", false},
		{"/anything", "/", "/anything", true},
		{"/acs/api/v1/authors", "/acs/api/v1/auth", "", false},
	} {
		rest, ok := cutPrefix(c.path, c.prefix)
		if ok != c.ok || ok && rest != c.rest {
			t.Errorf("under(%q, %q) = %q, %v, want %q, %v", c.path, c.prefix, rest, ok, c.rest, c.ok)
		}
	}
}
