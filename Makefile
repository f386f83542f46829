# SPDX-License-Identifier: Apache-2.0

GO       ?= go
PREFIX   ?= /usr/local
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS   = -s -w -X github.com/isolate-shim/isolate/shim/version.Version=$(VERSION) -X github.com/isolate-shim/isolate/shim/version.Revision=$(REVISION)
BUILD     = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags 'no_grpc urfave_cli_no_docs' -ldflags '$(LDFLAGS)'
LINT      = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
UNIT      = $(shell $(GO) list ./... | grep -v /integration)
INTEGR    = $(shell $(GO) list ./integration/... | grep -v /integration/cgroup2)
KERNEL   ?= 6.12
VMTEST    = ISOLATE_NO_SKIP=1 $(GO) test -count=1 -timeout 15m -exec "$(CURDIR)/bin/vmrun --kernel $(KERNEL) --cgroup v2 --timeout 840 --init
FUZZTIME ?= 10s
PAIRS    ?= 20
REPORT    = $(CURDIR)/bin/report

.PHONY: help build test test-unit integration test-vm lint fuzz bench demo install uninstall clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the shim and isolatectl, static, into bin/
	$(BUILD) -o bin/ ./cmd/containerd-shim-isolate-v1 ./cmd/isolatectl

test: test-unit integration ## run all tests; sets everything up by itself (needs root)

test-unit: ## run the tests of single packages
	@mkdir -p bin
	@$(GO) test -count=1 -v $(UNIT) >bin/unit.log 2>&1 || { grep -vE "^(=== |[ ]*--- (PASS|SKIP))" bin/unit.log; exit 1; }
	@grep -E '^(ok|\?) |--- SKIP|_test.go:[0-9]+: needs ' bin/unit.log
	@n=$$(grep -c -e '--- SKIP' bin/unit.log); echo "unit: $$n skipped"; [ $$n = 0 ] || [ -z "$$ISOLATE_NO_SKIP" ]

integration: ## run the tests that drive real containerd, runc, crun and lxcfs (needs root)
	$(GO) run ./integration/cmd/peers
	@mkdir -p bin && rm -f $(REPORT)
	ISOLATE_REPORT=$(REPORT) $(GO) test -count=1 -p 1 -timeout 40m $(INTEGR)
	@cat $(REPORT)

test-vm: ## test cgroup v2 under KERNEL in a virtual machine, with both cgroup drivers (needs root)
	$(GO) build -buildvcs=false -o bin/ ./integration/cmd/vmrun
	$(GO) run ./integration/cmd/peers containerd-2.4 runc-1.5 crun-1.21 lxcfs-6 image-inner isolate-programs
	$(VMTEST) none --" ./integration/cgroup2
	ISOLATE_TEST_ON_MACHINE=1 $(VMTEST) systemd --" ./integration/cgroup2

lint: ## check style and correctness
	$(GO) vet ./...
	$(GO) run $(LINT) run ./...

fuzz: ## fuzz every parser for FUZZTIME each
	$(GO) run ./integration/cmd/fuzzall -time $(FUZZTIME)

bench: ## measure isolate beside io.containerd.runc.v2, in one run (needs root)
	$(GO) run ./integration/cmd/bench -pairs $(PAIRS)

demo: ## run an ordinary image under isolate with real containerd, from nothing (needs root)
	$(GO) run ./integration/cmd/demo

install: build ## install the binaries below PREFIX
	install -D -t $(DESTDIR)$(PREFIX)/bin bin/containerd-shim-isolate-v1 bin/isolatectl

uninstall: ## remove what install installed
	$(RM) $(DESTDIR)$(PREFIX)/bin/containerd-shim-isolate-v1 $(DESTDIR)$(PREFIX)/bin/isolatectl

clean: ## remove what build made
	$(RM) -r bin
