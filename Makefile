# SPDX-License-Identifier: Apache-2.0

GO       ?= go
PREFIX   ?= /usr/local
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS   = -s -w -X github.com/isolate-shim/isolate/shim/version.Version=$(VERSION) -X github.com/isolate-shim/isolate/shim/version.Revision=$(REVISION)
BUILD     = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags 'no_grpc urfave_cli_no_docs' -ldflags '$(LDFLAGS)'
LINT      = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
HELM      = helm.sh/helm/v3/cmd/helm@v3.19.4
VULN      = golang.org/x/vuln/cmd/govulncheck@v1.9.0
UNIT      = $(shell $(GO) list ./... | grep -v /integration)
# The longest is first. What ALONE tries on the machine and uses up would disturb others.
INTEGR    = ./integration/nested $(shell $(GO) list ./integration/... | grep -vE '/integration/(apparmor|cgroup2|escape|kubernetes|nested|packages|selinux|sysctl|upgrade)(/|$$)')
ALONE     = ./integration/escape/...
OLD      ?=
KERNEL   ?=
INIT     ?=
FUZZTIME ?= 10s
JOBS     ?= 2
BIN      ?= bin
PAIRS    ?= 20
N        ?= 100
SEED     ?= 1
FROM     ?= 0
SOAK     ?=
REPORT    = $(CURDIR)/bin/report
COVER     = $(CURDIR)/bin/cover

.PHONY: help build test test-unit integration cover test-vm test-kubernetes test-package test-upgrade test-arm64 lint vuln fuzz bench soak demo install uninstall dist clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the shim and isolatectl, static, into BIN (bin/)
	$(BUILD) -o $(BIN)/ ./cmd/containerd-shim-isolate-v1 ./cmd/isolatectl

test: test-unit integration ## run all tests; sets everything up by itself (needs root)

test-unit: ## run the tests of single packages
	@mkdir -p bin
	@$(GO) test -count=1 -v $(UNIT) >bin/unit.log 2>&1 || { grep -vE "^(=== |[ ]*--- (PASS|SKIP))" bin/unit.log; exit 1; }
	@grep -E '^(ok|\?) |--- SKIP|_test.go:[0-9]+: (needs|[0-9]+ blocks) ' bin/unit.log
	@n=$$(grep -c -e '--- SKIP' bin/unit.log); echo "unit: $$n skipped"; [ $$n = 0 ] || [ -z "$$ISOLATE_NO_SKIP" ]

integration: ## run the tests that drive real containerd, runc, crun and lxcfs, JOBS packages at once (needs root)
	$(GO) run ./integration/cmd/peers
	@mkdir -p bin && rm -f $(REPORT)
	ISOLATE_REPORT=$(REPORT) $(GO) test -count=1 -p $(JOBS) -timeout 60m $(INTEGR)
	ISOLATE_REPORT=$(REPORT) $(GO) test -count=1 -p 1 -timeout 60m $(ALONE)
	@cat $(REPORT)

cover: ## print which share of each package's statements the tests of UNIT, INTEGR and ALONE run (needs root)
	@rm -rf $(COVER) && mkdir -p $(COVER)
	$(GO) test -count=1 -coverpkg=./cmd/...,./idmap/...,./internal/...,./shim/...,./spec/... $(UNIT) -args -test.gocoverdir=$(COVER)
	GOCOVERDIR=$(COVER) $(GO) test -count=1 -p 1 -timeout 60m $(INTEGR) $(ALONE)
	$(GO) tool covdata percent -i=$(COVER)

test-vm: ## test what depends on the kernel in virtual machines, under all kernels or KERNEL=6.1,7.x (needs root)
	$(GO) run ./integration/cmd/vmtest -kernel '$(KERNEL)' -init '$(INIT)'

test-kubernetes: ## test with a real Kubernetes cluster, on the host and inside a container (needs root)
	$(GO) run ./integration/cmd/peers
	$(GO) run ./integration/cmd/peers kubelet-1.36 control-plane-1.36 etcd-3.5
	ISOLATE_NO_SKIP=1 $(GO) test -count=1 -v -timeout 40m ./integration/kubernetes
	ISOLATE_NO_SKIP=1 ISOLATE_TEST_LONG=1 $(GO) test -count=1 -v -timeout 40m -run TestCluster ./integration/nested

test-arm64: ## build and check for arm64, and run the tests of single packages on an emulated processor (needs root)
	$(GO) run ./integration/cmd/armtest

test-package: dist ## build a release twice, compare, and install and remove its deb in containers (needs root)
	$(GO) run ./integration/cmd/peers
	deploy/package/dist.sh bin/again '$(VERSION)' '$(REVISION)'
	diff dist/SHA256SUMS bin/again/SHA256SUMS
	$(GO) run $(HELM) lint dist/isolate-chart-*.tar.gz
	$(GO) run $(HELM) template --kube-version 1.36 isolate dist/isolate-chart-*.tar.gz >/dev/null
	ISOLATE_NO_SKIP=1 ISOLATE_DIST=$(CURDIR)/dist $(GO) test -count=1 -v ./integration/packages

test-upgrade: ## test containers of version OLD, a tag or commit, under this one, and the other way round (needs root)
	@test -n '$(OLD)' || { echo "Say which version: make test-upgrade OLD=v0.1.0" >&2; exit 1; }
	$(GO) run ./integration/cmd/peers
	rm -rf bin/old && mkdir -p bin/old/source
	git archive '$(OLD)' | tar -xC bin/old/source
	cd bin/old/source && $(BUILD) -o .. ./cmd/containerd-shim-isolate-v1
	ISOLATE_NO_SKIP=1 ISOLATE_OLD=$(CURDIR)/bin/old/containerd-shim-isolate-v1 $(GO) test -count=1 -v ./integration/upgrade

lint: ## check style and correctness
	$(GO) vet ./...
	$(GO) run $(LINT) run ./...

vuln: ## look for known vulnerabilities in what the programs call (needs network)
	$(GO) run $(VULN) ./cmd/...

fuzz: ## fuzz every parser for FUZZTIME each
	$(GO) run ./integration/cmd/fuzzall -time $(FUZZTIME)

bench: ## measure isolate beside io.containerd.runc.v2, in one run (needs root)
	$(GO) run ./integration/cmd/bench -pairs $(PAIRS)

soak: ## live through N containers from number FROM on, with random faults that follow from SEED; SOAK=-peer: containerd's own shim (needs root)
	$(GO) run ./integration/cmd/soak -seed $(SEED) -from $(FROM) -n $(N) $(SOAK)

demo: ## run an ordinary image under isolate with real containerd, from nothing (needs root)
	$(GO) run ./integration/cmd/demo

install: ## install below PREFIX what build has made
	@test -x bin/isolatectl || { echo "There is nothing to install: run 'make build' first, as yourself." >&2; exit 1; }
	install -D -t $(DESTDIR)$(PREFIX)/bin bin/containerd-shim-isolate-v1 bin/isolatectl

uninstall: ## remove what install installed
	$(RM) $(DESTDIR)$(PREFIX)/bin/containerd-shim-isolate-v1 $(DESTDIR)$(PREFIX)/bin/isolatectl

dist: ## build a release into dist/: archives, an image, deb and rpm for amd64 and arm64, checksums, lists of what is in them
	deploy/package/dist.sh dist '$(VERSION)' '$(REVISION)'

clean: ## remove what build made
	$(RM) -r bin dist
