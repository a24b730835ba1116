# Everything runs from here. `make test` is what CI runs.
SHELL := /bin/bash
GO ?= go
export CGO_ENABLED ?= 1

.PHONY: help test deps check unit story fuzz bench build dist image drill chaos clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

test: deps check unit story ## everything: dependencies, static checks, all tests with the race detector

deps: ## install what the tests need (as root on Debian), or list what is missing
	@.ci/deps

check: ## gofmt, vet, staticcheck, govulncheck
	@.ci/check

unit: ## all Go tests with the race detector, and once more without it those that count allocations
	$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v /cmd/pushguard/ops)
	$(GO) test -race -timeout 20m ./cmd/pushguard/ops # by itself: a browser beside other tests misses its times
	$(GO) test -run Alloc ./pusher/... ./limiter/... ./quota/...

story: ## the demo, shortened: fails if the guard does not do what it tells
	$(GO) run ./cmd/pushguard demo --duration 20s

fuzz: ## each parser for 60 s
	@.ci/fuzz 60s

bench: ## pushguard beside nginx and HAProxy, in one run
	@bench/run

build: ## one static binary, ./pushguard
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o pushguard ./cmd/pushguard

dist: ## dist/: tarball with every dependency, the binary it gives with no network, SBOM; built twice and compared
	@deploy/dist $(VERSION)

image: ## container image out of dist/pushguard, run read-only and proven (podman or docker)
	@deploy/image

drill: ## replace the process under load, with the simulator as judge
	$(GO) run ./bench/drill

chaos: ## three replicas and Redis under faults at random, with the simulator's bill as judge
	$(GO) run ./bench/chaos

clean:
	rm -f pushguard
