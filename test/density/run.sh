#!/usr/bin/env bash
# What `make bench-density` does after the build: say where, measure, and print the table. Nothing here fails because of a number.
set -euo pipefail
cd "$(dirname "$0")/../.."
export MARINA_BIN="${MARINA_BIN:-$PWD/bin/marina}" MARINA_RUNTIME="${MARINA_RUNTIME:-$PWD/bundle/runtime/bin}"

echo "date:    $(date -u +%F)"
echo "machine: $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(awk '/MemTotal/ {printf "%.0f GiB", $2/1048576}' /proc/meminfo), Linux $(uname -r), $(stat -f -c %T .)"
echo "load:    $(cut -d' ' -f1-3 /proc/loadavg) before"
echo "commit:  $(git describe --tags --always --dirty 2>/dev/null || echo unknown), $(go version | cut -d' ' -f3), $(for f in bundle/kubernetes/v*/bin/VERSION; do printf 'Kubernetes %s ' "$(cat "$f")"; done)"
go test -run '^$' -bench Density -benchtime 1x -timeout 6h ./test/density "$@" | grep --line-buffered -vE '^(goos|goarch|pkg|cpu|PASS|ok|Benchmark)' || true
