# make up         one machine becomes a datacenter, with the example service on it
# make down       stop it; the state stays
# make clean-state  remove everything it made
# make test       every test, real containers included
# make bench      the numbers of docs/benchmarks.md
# make tour       run the README's own ten-minute tour
# make sim        the simulator, many more seeds than make test has

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build
.PHONY: build deps up down clean-state test bench tour sim fmt check

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/marinaos/marina/internal/cli.Version=$(VERSION)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
PACKAGES := libseccomp-dev pkg-config gcc libc6-dev ca-certificates curl
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

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

up: build
	@$(SUDO) env MARINA_STATE="$${MARINA_STATE:-/var/lib/marina}" examples/up.sh

down: bin/marina
	@$(SUDO) bin/marina down

clean-state: bin/marina
	@$(SUDO) bin/marina down --clean-state --yes

test: build
	@gofmt -l cmd internal examples test | { ! grep . ; } || { echo "run make fmt"; exit 1; }
	@go vet ./...
	@MARINA_REQUIRE_REAL=1 go test -timeout 40m ./...

bench: build
	@test/bench.sh

# CLUSTERS is the most there will be; DENSITY more flags of test/density.
.PHONY: bench-density soak
bench-density: build
	@test/density/run.sh -clusters $${CLUSTERS:-40} $${DENSITY:-}

# SEVERAL is how many clusters there are at a time.
soak: build
	@ROUNDS=$${ROUNDS:-100} MARINA_BIN="$${MARINA_BIN:-$(CURDIR)/bin/marina}" go test -run TestSoak -count 1 -timeout 12h -v ./test/soak

tour: build
	@go run ./test/tour README.md

sim:
	@go test ./internal/sim -run TestSeeds -seeds $${SEEDS:-20000} -timeout 4h -v

fmt:
	@gofmt -w cmd internal examples test
