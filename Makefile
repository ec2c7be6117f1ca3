# Everything a developer or a CI machine runs. `make` alone lists the targets.
# A fresh machine needs Go, git, make and root; the rest is installed or built here.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Targets that install packages must not meet one another, nor the tests, under `make -j`.
.NOTPARALLEL:

# The Go that builds, checks, tests and releases, whatever Go the machine starts with: its standard library has what is known
# mended, which .ci/vulncheck insists on. The go command fetches it as a module (76 MB, once). The environment's GOTOOLCHAIN
# does not count here; the go line in go.mod stays at the oldest Go that the code builds with, for a bare `go build ./...`.
export GOTOOLCHAIN := go1.27.3

BIN := build/bin
TOOLS := build/tools
PROTO_DEPS := build/proto-deps

# Two cores are the machine the project is sized for: two test binaries at once keep both busy.
TEST_PARALLEL ?= 2
TEST_TIMEOUT ?= 30m
TEST_PACKAGES ?= ./...
NEEDS_ROOT := test|pkg/lab|hostd/hypervisor/libvirt

# What is built: the version in VERSION once a commit is tagged so, before that one that sorts below it, by the commit's time.
VERSION ?= $(shell deploy/packages/version)

# No cgo: the binaries run on any host, whatever C library it has.
GO_BUILD = CGO_ENABLED=0 go build -trimpath -ldflags '-X github.com/umbra-dr/umbra/pkg/telemetry.version=$(VERSION)'

BUF := $(TOOLS)/buf
GOLANGCI_LINT := $(TOOLS)/golangci-lint
GOVULNCHECK := $(TOOLS)/govulncheck
PROTO_PLUGINS := $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc $(TOOLS)/protoc-gen-doc
VALIDATE_PROTO := $(PROTO_DEPS)/protovalidate/buf/validate/validate.proto

##@ Everyday

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## Build the commands into build/bin
	@mkdir -p $(BIN)
	$(GO_BUILD) -o $(BIN)/umbra-controlplane ./controlplane/cmd
	$(GO_BUILD) -o $(BIN)/umbra-hostd ./hostd/cmd
	$(GO_BUILD) -o $(BIN)/umbra ./controlplane/umbra
	$(GO_BUILD) -o $(BIN)/umbra-lab ./pkg/lab/cmd/umbra-lab

.PHONY: package
package: build $(TOOLS)/nfpm ## Make the Debian packages in build/packages; VERSION=
	deploy/packages/build $(TOOLS)/nfpm $(VERSION) build/packages

.PHONY: package-check
package-check: package ## Install, upgrade and remove the packages on a clean Debian 12 in a container (root)
	.ci/package-check $(TOOLS)/nfpm $(VERSION)

.PHONY: docs-check
docs-check: packages package ## Carry out docs/first-protection.md on two lab hosts, command by command (root)
	.ci/docs-check

.PHONY: confinement-check
confinement-check: packages build ## Replicate and fail over under libvirt's AppArmor and SELinux, in virtual machines (root)
	.ci/confinement-check apparmor
	.ci/confinement-check selinux

# The last tag; before there is one, a commit that is some way back.
upgrade-check: FROM ?= $(or $(shell git describe --tags --abbrev=0 2>/dev/null),a57d19e)
.PHONY: upgrade-check
upgrade-check: packages build $(TOOLS)/grpcurl ## Have parts of an earlier version do the demo with today's: FROM=REVISION (root)
	$(GO_BUILD) -o $(BIN)/umbra-demo ./test/demo
	.ci/upgrade-check $(FROM)

.PHONY: image-root
image-root: build ## Put together what the control plane's container image is made of, in build/image
	deploy/container/root build/image

.PHONY: demo
demo: packages build $(TOOLS)/grpcurl ## Run the main job end to end on this machine, step by step
	$(GO_BUILD) -o $(BIN)/umbra-demo ./test/demo
	$(BIN)/umbra-demo

.PHONY: packages
packages: ## Install what the lab and the tests need (root)
	deploy/install-packages.sh

.PHONY: fmt
fmt: $(GOLANGCI_LINT) $(BUF) $(VALIDATE_PROTO) ## Format the Go code and the protos
	$(GOLANGCI_LINT) fmt
	$(BUF) format proto --write

.PHONY: clean
clean: ## Remove everything that was built, tools included
	rm -rf build

##@ Tests

# -count=1: an answer about libvirt, from a cache, may be about the machine of another day.
.PHONY: test
test: packages compiler build ## Run every test with the race detector; installs what it needs (root)
	@start=$$SECONDS; \
	if go test -race -count=1 -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) $(TEST_PACKAGES); then \
	  echo "make test: every package passed in $$((SECONDS - start)) s"; \
	else \
	  echo "make test: FAILED after $$((SECONDS - start)) s; the packages marked FAIL above say why" >&2; \
	  exit 1; \
	fi

.PHONY: test-unit
test-unit: ## Run the tests that need neither root nor libvirt
	go test -short -p $(TEST_PARALLEL) -timeout 10m $$(go list ./... | grep -vE '/umbra/($(NEEDS_ROOT))(/|$$)')

# CYCLES and MINUTES bound it, 0 meaning no bound; SEED 0 draws one. What breaks a promise is repeated with the seed it prints.
chaos: CYCLES ?= 0
chaos: MINUTES ?= $(if $(filter 0,$(CYCLES)),10,0)
chaos: SEED ?= 0
chaos: FIRST ?= 1
.PHONY: chaos
chaos: packages build ## Break it on purpose on real libvirt hosts and check every promise (root); CYCLES=, MINUTES=, SEED=
	$(GO_BUILD) -o $(BIN)/umbra-chaos ./test/chaos/umbra-chaos
	$(BIN)/umbra-chaos --cycles=$(CYCLES) --minutes=$(MINUTES) --seed=$(SEED) --first=$(FIRST) --keep

soak: FOR ?= 30m
.PHONY: soak
soak: packages build ## Let the daily work go on for a while on real libvirt hosts: nothing grows (root); FOR=
	$(GO_BUILD) -o $(BIN)/umbra-soak ./test/soak
	$(BIN)/umbra-soak --for=$(FOR)

# Each decoder of bytes that others wrote, one after another. A crasher is kept under its package's testdata/fuzz: commit it
# with the fix, and every test run tries it again.
FUZZTIME ?= 1m
.PHONY: fuzz
fuzz: ## Fuzz every decoder, each for FUZZTIME (1m)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' $$(go list -f '{{.Dir}}' ./...) | sort -u | \
	while IFS=: read -r file target; do \
	  target=$${target#func }; echo "$$target"; \
	  go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s "$$(dirname "$$file")" </dev/null; \
	done

# The race detector needs cgo, hence a C compiler; nothing else in the project does.
.PHONY: compiler
compiler:
	@echo '#include <stdlib.h>' | $$(go env CC) -E - >/dev/null 2>&1 || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev; }

SIMULATION_LOGS := build/simulation

simulate: CYCLES ?= 1000
simulate: MINUTES ?= 0
simulate: SEED ?= 1
.PHONY: simulate
simulate: ## Run seeded rounds of requests and faults on a simulated hypervisor: CYCLES, MINUTES, SEED
	@mkdir -p $(SIMULATION_LOGS)
	go test -count=1 -v -timeout 24h -run TestNoPromiseIsBrokenWhateverBreaks ./test/simulation \
	  -cycles $(CYCLES) -minutes $(MINUTES) -seed $(SEED) -logs $(CURDIR)/$(SIMULATION_LOGS)

##@ Benchmarks

BENCH := $(BIN)/umbra-benchmarks

.PHONY: bench
bench: bench-ready ## Measure every comparison on the lab, five times on each side (root, 60 GB, an hour and a half); ROWS=9,4 for some
	$(BENCH) $(if $(ROWS),-rows $(ROWS))

.PHONY: bench-quick
bench-quick: bench-ready ## Measure a reduced set, within five minutes
	$(BENCH) -quick -results build/bench-quick.json -page build/bench-quick

.PHONY: bench-ready
bench-ready: build
	deploy/install-packages.sh --benchmarks
	$(GO_BUILD) -o $(BENCH) ./test/benchmarks

##@ Checks

.PHONY: lint
lint: buf-lint go-lint ## Lint the protos and the Go code

.PHONY: go-lint
go-lint: $(GOLANGCI_LINT) ## Lint the Go code only
	$(GOLANGCI_LINT) run
	.ci/no-silenced-length
	.ci/leak-checked

.PHONY: buf-lint
buf-lint: $(BUF) $(VALIDATE_PROTO) ## Lint the protos only
	$(BUF) lint
	$(BUF) format proto --diff --exit-code

.PHONY: vet
vet: ## Run go vet
	go vet ./...

# For the newest database instead of the pinned one: make vulncheck VULNDB=https://vuln.go.dev
.PHONY: vulncheck
vulncheck: $(GOVULNCHECK) ## Look for known vulnerabilities in code that the commands reach
	.ci/vulncheck $(GOVULNCHECK) $(VULNDB)

.PHONY: breaking
breaking: $(BUF) $(VALIDATE_PROTO) ## Refuse API changes that break clients of the last version
	.ci/breaking $(BUF) $(PROTO_DEPS)

##@ Generated code

.PHONY: gen
gen: $(BUF) $(PROTO_PLUGINS) $(VALIDATE_PROTO) ## Regenerate gen/ and docs/api.md from proto/
	$(BUF) generate
	$(BUF) generate --template buf.gen.docs.yaml

.PHONY: gen-check
gen-check: $(BUF) $(PROTO_PLUGINS) $(VALIDATE_PROTO) ## Fail when gen/ or docs/api.md is not what proto/ generates
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(BUF) generate -o "$$fresh"; \
	$(BUF) generate -o "$$fresh" --template buf.gen.docs.yaml; \
	{ diff -rN "$$fresh/gen" gen && diff "$$fresh/docs/api.md" docs/api.md; } >"$$fresh/diff" && { echo "gen/ and docs/api.md are up to date"; exit 0; }; \
	head -n 40 "$$fresh/diff"; echo "gen/ or docs/api.md is stale: run 'make gen' and commit the result" >&2; exit 1

# protovalidate's schema ships inside its Go module. No Go package of ours imports that module, so
# go.mod cannot hold its version; a module file beside the tools' does.
$(VALIDATE_PROTO): tools/protovalidate.mod
	@go mod download -modfile=$< github.com/bufbuild/protovalidate
	@dir=$$(go list -modfile=$< -m -f '{{.Dir}}' github.com/bufbuild/protovalidate); \
	install -D -m 0644 "$$dir/proto/protovalidate/buf/validate/validate.proto" $@

##@ Tools

.PHONY: tools
tools: $(BUF) $(PROTO_PLUGINS) $(GOLANGCI_LINT) $(GOVULNCHECK) $(TOOLS)/grpcurl $(TOOLS)/nfpm ## Build every pinned tool into build/tools

# One module file for each tool: sharing one would let a tool's requirements move another tool off
# its pin (buf asks for a protobuf newer than the one the generated code is written for). Another Go
# builds them anew: golangci-lint and govulncheck read only what the Go that built them, or an older one, has written.
$(TOOLS)/%: tools/%.mod $(TOOLS)/.$(GOTOOLCHAIN)
	@echo "building $* from $<"
	@go build -modfile=$< -trimpath -o $@ "$$(awk '$$1 == "tool" { print $$2 }' $<)"

$(TOOLS)/.$(GOTOOLCHAIN):
	@mkdir -p $(@D)
	@rm -f $(@D)/.go*
	@touch $@
