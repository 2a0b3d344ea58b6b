#!/usr/bin/env bash
# What `make bench` does after the build: measure, and print tables. Nothing here fails because of a number.
set -euo pipefail
cd "$(dirname "$0")/.."
export MARINA_BIN="${MARINA_BIN:-$PWD/bin/marina}" MARINA_RUNTIME="${MARINA_RUNTIME:-$PWD/bundle/runtime/bin}"

echo "date:    $(date -u +%F)"
echo "machine: $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(awk '/MemTotal/ {printf "%.0f GiB", $2/1048576}' /proc/meminfo), Linux $(uname -r), $(stat -f -c %T .)"
echo "load:    $(cut -d' ' -f1-3 /proc/loadavg) before"
echo "commit:  $(git describe --tags --always --dirty 2>/dev/null || echo unknown), $(go version | cut -d' ' -f3)"
echo
echo "== Real containers, and the real daemon with stub agents"
go test -run '^$' -bench "${1:-.}" -benchtime 1x -timeout 60m ./test/bench | grep -vE '^(goos|goarch|pkg|cpu|PASS|ok|Benchmark)' || true
[ $# -eq 0 ] || exit 0

echo
echo "== The master alone: stub agents over TLS, embedded etcd with fsync, launches by the kernel's contract"
MARINA_BENCH_DIR="${MARINA_BENCH_DIR:-/var/tmp}" go test -run '^$' -bench BenchmarkFleet -benchtime 1x -timeout 30m ./internal/master | grep -E '^Benchmark|FAIL'

echo
echo "== Parts"
for p in internal/placement internal/store/etcd internal/network internal/services internal/agent internal/runtime; do
	go test -run '^$' -bench . -benchtime 1s -timeout 20m "./$p" | grep -E '^Benchmark|FAIL' || echo "$p: no benchmark"
done
