# Every target does its own set-up: on a fresh machine `make demo` needs make and Python 3.11 or newer, nothing else.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# embedded: servers from packages.  containers: testcontainers, needs Docker.
STACK ?= embedded
# Which story the demo plays: `yike demo --help` lists them.
STORY ?= purchase
# What pytest gets, as in: make test ARGS="-k refund -x"
ARGS ?=
# For make faults: only this fault, the number that repeats its chance, a mistake to build in, how long the soak is.
ONE ?=
SEED ?=
BREAK ?=
SOAK ?= 10m
# For make mutants: only these files, so many by chance (with SEED), only what survived the last run.
ONLY ?=
SAMPLE ?=
AGAIN ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
# The first of these that is new enough; PYTHON=… chooses another.
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3 python
CODE := $(wildcard services shared ops gateway bench tests)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo up down test check bench bench-long profile faults mutants lock clean

help:
	@echo "make demo    the whole system in the foreground, with a story played through it (STORY=name); ctrl-C ends it"
	@echo "make up      the whole system in the background        make down   stop it"
	@echo "make test    all tests (STACK=embedded|containers, ARGS=\"-k words\")"
	@echo "make check   style, types, layers, contracts, rules, migrations, compose file, lock"
	@echo "make bench   load and comparisons        make bench-long  also ten million rows and a midnight"
	@echo "make profile a flame graph of every process under load"
	@echo "make faults  21 kinds of faults under load, everything checked after each (ONE=name, SEED=n, BREAK=all, SOAK=1h)"
	@echo "make mutants small faults in the code, one at a time: do the tests notice? (ONLY=\"path …\", SAMPLE=n, SEED=n, AGAIN=1)"
	@echo "make lock    newest versions into requirements.lock    make clean  remove data and caches"

demo: $(INSTALLED)
	@$(BIN)/yike demo --story $(STORY)

up: $(INSTALLED)
	@$(BIN)/yike up

down: $(INSTALLED)
	@$(BIN)/yike down

test: $(INSTALLED)
	@STACK=$(STACK) $(BIN)/python -m pytest $(ARGS)

bench: $(INSTALLED)
	@$(BIN)/python -m bench $(ARGS)

bench-long: $(INSTALLED)
	@$(BIN)/python -m bench --long $(ARGS)

profile: $(INSTALLED)
	@$(BIN)/python -m bench.profile $(ARGS)

faults: $(INSTALLED)
	@ONE=$(ONE) SEED=$(SEED) BREAK=$(BREAK) SOAK=$(SOAK) $(BIN)/python -m tests.faults $(ARGS)

mutants: $(INSTALLED)
	@ONLY="$(ONLY)" SAMPLE=$(SAMPLE) SEED=$(SEED) AGAIN=$(AGAIN) $(BIN)/python -m tests.mutants $(ARGS)

check: $(INSTALLED)
	@echo "check: style" && $(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@echo "check: types" && $(BIN)/mypy --no-error-summary $(CODE)
	@echo "check: layers" && $(BIN)/lint-imports --no-logo
	@echo "check: contracts" && $(BIN)/python -m ops.check.contracts
	@echo "check: rules" && $(BIN)/python -m ops.check.rules
	@echo "check: migrations" && $(BIN)/python -m ops.check.migrations
	@echo "check: compose" && $(BIN)/python -m ops.check.compose
	@echo "check: lock" && $(BIN)/python -m ops.check.lock

lock: $(INSTALLED)
	@$(BIN)/python -m ops.check.lock --upgrade
	@echo "requirements.lock renewed; the next make installs it"

clean:
	@if [ -x $(BIN)/yike ]; then $(BIN)/yike down || true; fi
	@rm -rf .yike build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml
	@python=; for name in $(or $(PYTHON),$(PYTHONS)); do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Yike needs Python 3.11 or newer, and found none of: $(or $(PYTHON),$(PYTHONS))."; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "$$python cannot make virtual environments: on Debian and Ubuntu install python$$version-venv (as root:"; \
	  echo "apt-get install python$$version-venv), elsewhere the package that brings ensurepip."; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "setup: making .venv with $$($$python --version)"; $$python -m venv .venv; \
	fi
	@echo "setup: installing $$(grep -c '^[A-Za-z0-9]' requirements.lock) packages into .venv (once; about a minute)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
