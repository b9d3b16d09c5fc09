# One environment (.venv), filled in steps: each step leaves a stamp, so that a second call is instant.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
TORCH_CPU_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip would compile every module on one core, which takes longer than all the rest; see .runtime
INSTALL := $(PIP) install -qq --no-compile --constraint constraints.txt
EDITABLE := $(INSTALL) --no-build-isolation --editable
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
SOURCES := $(wildcard src tests recipes benchmarks scripts)
TYPED := $(wildcard src recipes benchmarks)
DOCUMENTS := $(wildcard README.md docs)

# Two test processes share two cores, so each gets one thread; offline, so that a download is an error.
OFFLINE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
# worksteal: each process has its half, file by file, so that what the tests of a file share is made once
PYTEST := $(OFFLINE) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu and not network"
SLOW := $(OFFLINE) $(BIN)/python -m pytest -n 2 -v --durations 0 --durations-min 1 -m slow

.PHONY: help bench test slow check fuzz docs format format-check lint levels types test-and-examples benchmark-tools clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

bench: $(VENV)/.runtime ## set up, run the quick study, print a table and the path of its report
	@$(BIN)/paretune run quick -o results/quick
	@echo "next: . $(BIN)/activate, then the commands of README.md, such as paretune plan quick"

test: $(VENV)/.test ## set up and run the tests
	@$(PYTEST) tests

slow: $(VENV)/.test ## run the tests that take minutes, naming each as it goes
	@$(SLOW) tests

check: format-check lint levels types test-and-examples fuzz docs ## format, lint, import levels, types, tests, examples in the docs, fuzz, links of the docs

docs: $(VENV)/.docs ## make the documentation a site in build/site, every link checked
	@echo "check: docs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict 2>&1 | { grep -v '^INFO' || true; }
	@echo "docs: open build/site/index.html; for the search, $(BIN)/mkdocs serve"

fuzz: $(VENV)/.test ## give the commands 2,000 mutated files and 60 mutated command lines
	@echo "check: fuzz"
	@$(BIN)/python recipes/trust/fuzz.py --inputs 2000 --lines 60

format: $(VENV)/.check ## put the code into its format and fix what can be fixed
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

benchmark-tools: $(VENV)/.benchmark ## add what benchmarks/ compares with (TRL)

clean: ## remove the environment and all caches (never results/)
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests recipes benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

format-check: $(VENV)/.check
	@echo "check: format"
	@$(BIN)/ruff format --check --quiet --diff $(SOURCES)

lint: $(VENV)/.check
	@echo "check: lint"
	@$(BIN)/ruff check --quiet $(SOURCES)

levels: $(VENV)/.check
	@echo "check: import levels"
	@$(BIN)/lint-imports --no-logo

types: $(VENV)/.check
	@echo "check: types"
	@$(BIN)/mypy $(TYPED)

# make test's run, with the examples in docstrings and documents beside it
test-and-examples: $(VENV)/.test
	@echo "check: tests and examples"
	@$(PYTEST) --doctest-modules --doctest-glob='*.md' tests src $(DOCUMENTS)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "PYTHON must be 3.11 or newer, got $$($(PYTHON) --version 2>&1). Name one: make PYTHON=python3.11 ..."; exit 1; }
	@echo "setup: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.python constraints.txt
	@if nvidia-smi -L >/dev/null 2>&1; then \
	  echo "setup: GPU found, installing torch $(TORCH)"; \
	  $(INSTALL) torch==$(TORCH); \
	else \
	  echo "setup: no GPU found, installing the CPU build of torch $(TORCH)"; \
	  $(INSTALL) $(TORCH_CPU_INDEX:%=--extra-index-url %) torch==$(TORCH)+cpu 2>/dev/null || $(INSTALL) torch==$(TORCH); \
	  grep -q '^cuda.*= None' $(VENV)/lib/python3*/site-packages/torch/version.py \
	  || echo "setup: no CPU build was offered, so this torch carries GPU libraries it will not use (make TORCH_CPU_INDEX=<address> names an index that has one)"; \
	fi
	@touch $@

$(VENV)/.runtime: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "setup: paretune and its dependencies (about a minute)"
	@$(INSTALL) setuptools
	@$(EDITABLE) .
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/|transformers/models/.+/' $(VENV)/lib || true # some files are for a newer Python
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	@echo "setup: test tools"
	@$(EDITABLE) '.[test,recipes]'
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo "setup: format, lint and type tools"
	@$(EDITABLE) '.[check]'
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime
	@echo "setup: documentation tools"
	@$(EDITABLE) '.[docs]'
	@touch $@

$(VENV)/.benchmark: $(VENV)/.test
	@echo "setup: benchmark tools"
	@$(EDITABLE) '.[bench]'
	@touch $@
