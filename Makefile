# make up         one machine becomes a datacenter, with the example service and two Kubernetes clusters on it
# make down       stop it; the state stays
# make clean-state  remove everything it made
# make test       every test, real containers and real clusters included
# make bench      the numbers of docs/benchmarks.md
# make bench-kernel   the kernel beside SwarmKit and, once make bench-peers has built it, kube-scheduler
# make bench-density  what clusters cost, as many as fit
# make conformance    upstream's conformance tests of each minor, for hours; docs/conformance.md says how to run a part
# make soak       clusters made and deleted a hundred times
# make tour       run the README's own ten-minute tour
# make lint vuln  staticcheck, and known vulnerabilities; make test runs both
# make house      where the house stands: sizes, tests, how calls run between files, which room imports which
# make race       the race detector over every room; race-some over those that are quick
# make upgrade    the last release becomes this one under running apps and a running cluster
# make sim        the simulator, many more seeds than make test has
# make release    a tarball with everything prebuilt

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build
.PHONY: build kubernetes kubernetes-all deps up down clean-state test bench bench-kernel bench-peers bench-density soak tour conformance conformance-report house lint race race-some vuln vuln-update upgrade sim release fmt check

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/marinaos/marina/internal/cli.Version=$(VERSION)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
PACKAGES := libseccomp-dev pkg-config gcc libc6-dev ca-certificates curl nftables e2fsprogs
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
STATE := MARINA_STATE="$${MARINA_STATE:-/var/lib/marina}"

build: bin/marina bin/hello.tar runtime

# go build decides itself what is out of date; it is quick when nothing is.
.PHONY: bin/marina runtime
bin/marina:
	@mkdir -p bin
	@[ -e bin/marina ] || echo "building marina: a few minutes the first time, seconds later"
	@$(GOBUILD) -o bin/marina.new ./cmd/marina
	@cmp -s bin/marina.new bin/marina && rm bin/marina.new || mv bin/marina.new bin/marina

bin/hello: $(wildcard examples/hello/*.go)
	@mkdir -p bin
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ ./examples/hello

bin/hello.tar: bin/hello $(wildcard examples/ociimage/*.go)
	@go run ./examples/ociimage -name hello:1 -o $@ bin/hello

runtime: deps
	@$(MAKE) --no-print-directory -C bundle/runtime

# What clusters run: the default minor of Kubernetes, nodes' first process, add-ons. Other minors when asked for: kubernetes-v1.36.
kubernetes: deps
	@$(MAKE) --no-print-directory -C bundle/kubernetes
kubernetes-all: deps
	@$(MAKE) --no-print-directory -C bundle/kubernetes all
kubernetes-%: deps
	@$(MAKE) --no-print-directory -C bundle/kubernetes $* node addons

# What the build and the machine need of Debian; only what is missing is installed.
deps:
	@command -v go >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl/"; exit 1; }
	@missing=()
	@for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing+=($$p); done
	@if [ $${#missing[@]} -gt 0 ]; then
		command -v apt-get >/dev/null || { echo "please install: $${missing[*]}"; exit 1; }
		echo "installing $${missing[*]}"
		$(SUDO) apt-get update -qq
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq "$${missing[@]}" >/dev/null
	fi

# The datacenter is up and usable before Kubernetes is built, which takes minutes the first time.
up: build
	@$(SUDO) env $(STATE) examples/up.sh
	@$(MAKE) --no-print-directory kubernetes
	@$(SUDO) env $(STATE) examples/clusters.sh

down: bin/marina
	@$(SUDO) bin/marina down

clean-state: bin/marina
	@$(SUDO) bin/marina down --clean-state --yes

test: build kubernetes-all
	@gofmt -l cmd internal examples test bundle bench tools | { ! grep . ; } || { echo "run make fmt"; exit 1; }
	@go vet ./...
	@$(MAKE) --no-print-directory lint vuln
	@MARINA_REQUIRE_REAL=1 go test -timeout 40m ./...
	@$(MAKE) --no-print-directory race-some
	@$(MAKE) --no-print-directory -C bundle/kubernetes test
	@cd test/clusters && MARINA_REQUIRE_REAL=1 go test -vet=off -timeout 40m -run '$(CLUSTER_TESTS)' ./...

# What compilers let pass. The tools are of the module tools/, so that they are no dependencies of Marina.
lint:
	@go tool -modfile=tools/go.mod staticcheck ./...
	@cd tools && go vet ./... && go test ./...

# Rooms with goroutines whose tests need neither etcd nor containerd; make race takes all of them.
RACE := agent/... audit durable gateway identity/... images kubernetes/... metrics network/dns runtime/process scheduler services/... store/memory
race-some:
	@CGO_ENABLED=1 go test -race -vet=off -timeout 20m $(patsubst %,./internal/%,$(RACE))
race:
	@CGO_ENABLED=1 go test -race -vet=off -timeout 90m ./internal/...

# From the last release (test/testbed/release.txt) to this one: apps, then a cluster. make test runs both too.
upgrade: build kubernetes
	@MARINA_REQUIRE_REAL=1 go test -count=1 -timeout 20m -v -run TestAnUpgrade ./test/stories
	@cd test/clusters && MARINA_REQUIRE_REAL=1 go test -vet=off -count=1 -timeout 40m -v -run TestAnUpgrade ./...

# Known vulnerabilities that our code reaches, by the database that tools/vulndb pins; vuln-update pins today's.
vuln:
	@go run -C tools ./vuln
vuln-update:
	@cd tools/vulndb && GOFLAGS=-mod=mod go mod edit -require=golang.org/x/vulndb@$$(go list -m -f '{{.Version}}' golang.org/x/vulndb@latest)
	@rm -f go.sum && GOFLAGS=-mod=mod go mod download golang.org/x/vulndb
	@$(MAKE) --no-print-directory -C $(CURDIR) vuln

# What make test asks of clusters; make test-clusters asks everything, a chart that others wrote installed by Helm included.
CLUSTER_TESTS := TestAnUpgrade|TestCreatingAndDeleting|TestABrokenEtcd|TestAnImage|TestWithoutUserNamespaces|TestPodsFind|TestAPrivilegedPod|TestNothingOfAnother|TestALoadBalancer|TestANodeIsResized|TestAClusterGrows|TestAKilledControlPlane|TestAKilledNode|TestAPodRuns|TestAService|TestNetworkPolicies|TestASecretsText|TestAClaimedVolume|TestTheDatacentersOwnPorts|TestAnotherClustersCredentials|TestNodesAre|TestVolumesOf|TestMetrics|TestPodsOfDifferent|TestAGroupsQuota
.PHONY: test-clusters
test-clusters: build kubernetes-all
	@cd test/clusters && MARINA_REQUIRE_REAL=1 go test -vet=off -timeout 60m -v ./...
	@cd test/helm && MARINA_REQUIRE_REAL=1 go test -vet=off -timeout 30m -v ./...

bench: build
	@test/bench.sh

# PART is one of placement, packing, sharing, memory, commit, api, kube; all without it.
bench-kernel: build
	@bench/kernel.sh $(PART)

# kube-scheduler with its API server and etcd, for bench-kernel: compiles much of Kubernetes, some minutes.
bench-peers: deps
	@cd bench/schedulerperf && mkdir -p bin && export GOWORK=off CGO_ENABLED=0
	@go test -c -trimpath -gcflags=all=-dwarf=false -tags selinux,notest,grpcnotrace -o bin/schedulerperf .
	@go build -trimpath -gcflags=all=-dwarf=false -tags selinux,notest,grpcnotrace -o bin/etcd go.etcd.io/etcd/server/v3

# CLUSTERS is the most there will be; DENSITY more flags of test/density.
bench-density: build kubernetes
	@test/density/run.sh -clusters $${CLUSTERS:-40} $${DENSITY:-}

# SEVERAL is how many clusters there are at a time.
soak: build kubernetes
	@ROUNDS=$${ROUNDS:-100} MARINA_BIN="$${MARINA_BIN:-$(CURDIR)/bin/marina}" go test -run TestSoak -count 1 -timeout 12h -v ./test/soak

tour: build
	@go run ./test/tour README.md

# Of one minor and one shard with MINOR=v1.37 SHARD=api; ARGS are further flags: ARGS='-only failed -limit 50m'.
conformance: build
	@$(MAKE) --no-print-directory -C bundle/kubernetes $(if $(MINOR),$(MINOR) node addons,all)
	@mkdir -p .cache/conformance
	@go build -o .cache/conformance/conformance ./test/conformance
	@.cache/conformance/conformance -minors "$(MINOR)" -shards "$(SHARD)" $(ARGS)

conformance-report:
	@go run ./test/conformance -report

# ARGS=-json prints all of it for programs.
house:
	@go run ./internal/archtest/survey $(ARGS)

# AGENT_HOURS are simulated, seed after seed from FROM on.
sim:
	@go test ./internal/sim -run TestSeeds -hours $${AGENT_HOURS:-1000000} -from $${FROM:-1} -timeout 12h -v | grep -v '^=== '

# Unpacked anywhere, bin/marina finds its runtime and what clusters run beside it.
release: build kubernetes-all
	@dir=$$(mktemp -d)
	@trap 'rm -rf "$$dir"' EXIT
	@top=$$dir/marina-$(VERSION)
	@mkdir -p $$top
	@cp -L bin/marina $$top/
	@cp -r bundle/runtime/bin $$top/runtime
	@for b in bundle/kubernetes/*/bin; do mkdir -p $$top/kubernetes; cp -r $$b $$top/kubernetes/$$(basename $$(dirname $$b)); done
	@cp LICENSE README.md CHANGELOG.md $$top/
	@tar -C $$dir --sort=name --owner=0 --group=0 --numeric-owner -cf - marina-$(VERSION) | gzip -1 >bin/marina-$(VERSION).tar.gz
	@ls -lh bin/marina-$(VERSION).tar.gz | awk '{print $$NF ": " $$5}'

fmt:
	@gofmt -w cmd internal examples test bundle bench tools
