# What one does with this repository. Tools are built from .ci/tools into .bin, once; nothing is installed on the machine.
SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
BIN         := .bin
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# google/api/*.proto with the right go_package ship in this module alone (v2 has none). It is linked, never required.
GOOGLEAPIS  := github.com/grpc-ecosystem/grpc-gateway@v1.16.0
# All but tests is compiled as what we ship, and so once: Go keeps what it compiled apart by such flags.
SHIP         = CGO_ENABLED=0 GOFLAGS="$$(go env GOFLAGS) -trimpath"
# Of make test: one room, or packages, or tests by name, or one kind of database.
PACKAGES     = $(or $(PKG),$(and $(ROOM),./services/$(ROOM)/...))
RUNS         = $(if $(filter-out sqlite postgres,$(DB)),$(error DB is sqlite or postgres))$(and $(RUN),-run $(RUN)) $(and $(DB),-skip /^$(if $(filter sqlite,$(DB)),postgres,sqlite)$$)

.PHONY: help demo run test soak lint generate verify bench build release need fresh
.DELETE_ON_ERROR:

help: ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: build ## watch Forge test, merge and deploy on a simulated GitHub (ARGS=--once: end by itself)
	@$(BIN)/forge demo $(ARGS)

run: build ## start Forge for a real GitHub App (ARGS: its flags; without settings it says which it needs)
	@$(BIN)/forge up $(ARGS)

test: need $(BIN)/.buildkitd $(BIN)/.grpcurl $(BIN)/.pebble ## run all tests, or of them ROOM=reporter, PKG=./services/kit/due, RUN=TestName, DB=sqlite; TESTFLAGS=-v TEST_RACE=1
	@POSTGRES_OPTIONS='-c fsync=off -c full_page_writes=off -c synchronous_commit=off' TESTFLAGS='$(TESTFLAGS) $(RUNS)' \
		.ci/services .ci/test $(PACKAGES)

soak: need ## run the tests that take long, TestSoak…, or of them ROOM, PKG, RUN=Soak.*Swarm as in test
	@TEST_SOAK=1 POSTGRES_OPTIONS='-c fsync=off -c full_page_writes=off -c synchronous_commit=off' \
		TESTFLAGS='-count=1 -v -timeout=4h $(TESTFLAGS) -run=$(or $(RUN),^TestSoak)' .ci/services .ci/test $(PACKAGES)

lint: need $(BIN)/.lint ## look for what compiles and is still wrong (gen is generated, so services alone)
	@cd services && $(SHIP) ../$(BIN)/golangci-lint run --allow-parallel-runners ./...

generate: fresh ## make gen/ from proto/ anew
	@rm -rf gen/forge gen/openapi && mv $(BIN)/fresh/gen/* gen/

verify: fresh ## prove that the contract is kept, generated code is fresh and both modules stand alone
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code proto || { echo "proto/ is not formatted: run $(BIN)/buf format -w proto"; exit 1; }
	@.ci/breaking
	@for part in forge openapi; do diff -r gen/$$part $(BIN)/fresh/gen/$$part || \
		{ echo "gen/$$part is not what proto/ says: run make generate"; exit 1; }; done
	@unformatted=$$(gofmt -l services); [ -z "$$unformatted" ] || { echo "not formatted, run gofmt -w:"; echo "$$unformatted"; exit 1; }
	@$(SHIP) go vet ./gen/... ./services/...
	@for module in gen services; do for work in off "$(CURDIR)/go.work"; do \
		GOWORK=$$work $(SHIP) go build -C $$module ./...; done; GOWORK=off go mod tidy -C $$module -diff; done

bench: need ## run all benchmarks (BENCHFLAGS="-bench Ingest"); compare what one run prints, not runs
	@.ci/services go test -timeout=2h -run '^$$' -bench . $(BENCHFLAGS) ./services/...

build: need
	@$(SHIP) go build -C services -ldflags '-s -w -X github.com/forge-ci/forge/services/settings.Version=$(VERSION)' \
		-o ../$(BIN)/ ./cmd/forge ./cmd/forgexec

release: need ## make archives of static binaries, an image and checksums in .bin/release (VERSION=v0.1.0, RELEASE_IMAGE=no)
	@.ci/release '$(VERSION)' $(BIN)/release

# Generated code in a folder of its own: `generate` puts it in place, `verify` compares.
fresh: need $(BIN)/.buf $(BIN)/.gen third_party/googleapis
	@rm -rf $(BIN)/fresh && $(BIN)/buf generate --output $(BIN)/fresh

third_party/googleapis:
	@mkdir -p $(@D)
	@dir=$$(go mod download -json $(GOOGLEAPIS) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'); ln -sfn "$$dir/$@" $@

# A tool module's go.mod names its tools; the stamp says when they were built.
$(BIN)/.%: .ci/tools/%/go.mod .ci/tools/%/go.sum
	@echo "building the tools of .ci/tools/$* (once)"
	@mkdir -p $(BIN)
	@GOWORK=off $(SHIP) go build -C .ci/tools/$* -ldflags='-s -w' -o $(CURDIR)/$(BIN)/ tool
	@touch $@

need:
	@command -v git >/dev/null || { echo "git is missing: https://git-scm.com/downloads" >&2; exit 1; }
	@command -v go >/dev/null || { echo "Go is missing: install 1.26 or newer from https://go.dev/dl" >&2; exit 1; }
	@case "$$(go env GOVERSION)" in go1.2[6-9]*|go1.[3-9][0-9]*|devel*) ;; \
		*) echo "Forge needs Go 1.26 or newer, this is $$(go env GOVERSION): https://go.dev/dl" >&2; exit 1 ;; esac
