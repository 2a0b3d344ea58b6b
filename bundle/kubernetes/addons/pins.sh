#!/usr/bin/env bash
# pins.sh: holds every module that the add-ons' program shares with the default minor's at that minor's version, by the
# replace block of go.mod. It is what upstream tested Kubernetes with, and what Go's build cache has compiled already:
# without it the client library and the API server library are compiled a second time. Run it when either's pins changed.
set -euo pipefail
cd "$(dirname "$0")"
export GOWORK=off GOFLAGS=-mod=mod
minor=../${1:-v1.37}
used() {
	go list -deps -tags selinux,notest,grpcnotrace \
		-f '{{with .Module}}{{if not .Main}}{{.Path}} {{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}{{end}}{{end}}' "$1" | sort -u
}
go list -m -f '{{with .Replace}}{{$.Path}}{{end}}' all | sed '/^$/d; s/^/-dropreplace=/' | xargs -r go mod edit
go mod tidy
join -j 1 <(cd "$minor" && used .) <(used ./program) | awk '$2 != "" && $2 != $3 { print "-replace=" $1 "=" $1 "@" $2 }' | xargs -r go mod edit
go mod tidy
