package main

import (
	"slices"
	"testing"

	"github.com/coredns/caddy"
)

func TestEveryDirectiveIsBuiltIn(t *testing.T) {
	have := caddy.ListPlugins()["others"]
	for _, d := range directives {
		if d != "on" && !slices.Contains(have, "dns."+d) {
			t.Errorf("got no plugin %q, there are %v", d, have)
		}
	}
}
