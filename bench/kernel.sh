#!/usr/bin/env bash
# What `make bench-kernel` does after the build: measure the kernel beside its peers, and print tables. Nothing here fails because of a number.
# It takes a quarter of an hour. An argument names one part: placement, packing, sharing, memory, commit, api, kube.
set -euo pipefail
cd "$(dirname "$0")/.."
part="${1:-}"
wanted() { [ -z "$part" ] || [ "$part" = "$1" ]; }

echo "date:    $(date -u +%F)"
echo "machine: $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(awk '/MemTotal/ {printf "%.0f GiB", $2/1048576}' /proc/meminfo), Linux $(uname -r)"
echo "load:    $(cut -d' ' -f1-3 /proc/loadavg) before"
echo "commit:  $(git describe --tags --always --dirty 2>/dev/null || echo unknown), $(go version | cut -d' ' -f3)"
echo

(cd bench/kernel && GOWORK=off go build -o bin/kernel .)
for p in placement packing sharing; do
	if wanted "$p"; then bench/kernel/bin/kernel -only "$p"; fi
done

if wanted memory; then
	echo "== memory: one leading process, embedded etcd, master and services, everything launched by Marathon's API and running"
	for agents in 1000 10000 100000; do
		MARINA_BENCH_AGENTS="$agents" MARINA_BENCH_DIR="${MARINA_BENCH_DIR:-/var/tmp}" \
			go test -run '^$' -bench BenchmarkMemory -benchtime 1x -timeout 30m ./internal/master | grep -E '^(agents|tasks|load) |FAIL|fatal' || true
	done
	echo
fi
if wanted commit; then
	echo "== commit: the master alone, stub agents over TLS, embedded etcd with fsync, launches by the kernel's contract"
	MARINA_BENCH_DIR="${MARINA_BENCH_DIR:-/var/tmp}" go test -run '^$' -bench BenchmarkFleet -benchtime 1x -timeout 30m ./internal/master | grep -E '^Benchmark|FAIL' || true
	echo
fi
if wanted api; then
	echo "== api: the real daemon with stub agents, everything asked for by Marathon's API"
	MARINA_BIN="${MARINA_BIN:-$PWD/bin/marina}" MARINA_RUNTIME="${MARINA_RUNTIME:-$PWD/bundle/runtime/bin}" \
		go test -run '^$' -bench BenchmarkFleet -benchtime 1x -timeout 60m ./test/bench | grep -vE '^(goos|goarch|pkg|cpu|PASS|ok|Benchmark)' || true
	echo
fi
if wanted kube; then
	echo "== kube: upstream's scheduler_perf, kube-scheduler with its API server and etcd, nodes that are rows"
	peer="$PWD/bench/schedulerperf/bin"
	if [ ! -x "$peer/schedulerperf" ]; then
		echo "left out: it is not built (make bench-peers builds it, in some minutes)"
	else
		config="$(cd bench/schedulerperf && GOWORK=off go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/integration/scheduler_perf/misc/performance-config.yaml"
		out="$(mktemp -d)"
		trap 'rm -rf "$out"' EXIT
		# The two variables tell the API server of tests where its source lies: the program is built without its paths.
		(cd "$(dirname "$config")" && TEST_SRCDIR="$(go env GOMODCACHE)" TEST_WORKSPACE=. TMPDIR="$out" PATH="$peer:$PATH" "$peer/schedulerperf" -test.run '^$' -test.bench 'PerfScheduling/SchedulingBasic/5000Nodes_10000Pods$' \
			-test.benchtime 1x -test.timeout 30m -config "$config" -data-items-dir "$out" >"$out/log" 2>&1) || true
		# Upstream calls a number below its own threshold a failure; what it measured is in its file all the same.
		awk -F'[:,]' '/"(Average|Perc50|Perc99)"/ {v[$1]=$2} /"Metric": "SchedulingThroughput"/ {printf "5,000 nodes, 10,000 pods: average %.0f pods/s, p50 %.0f, p99 %.0f\n", v["        \"Average\""], v["        \"Perc50\""], v["        \"Perc99\""]}' "$out"/*.json || tail -5 "$out/log"
	fi
fi
