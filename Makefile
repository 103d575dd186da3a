# `make` lists the targets. Everything happens in .venv, which is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard src/penstock/kernels/*.pyx src/penstock/kernels/*.pxd) setup.py pyproject.toml

.PHONY: help run test test-embedded test-servers tools postgres test-fast bench bench-servers lint clean
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Penstock needs Python 3.10 or later: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. Debian: apt-get install python3-venv"; exit 1; }
	@command -v cc >/dev/null || echo "NOTICE: no C compiler; the kernels will run in plain Python, about 100 times slower. Debian: apt-get install gcc python3-dev"
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel

$(VENV)/.made: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[serve]'
	@touch $@

$(VENV)/.made-test: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,bench]'
	@touch $(VENV)/.made $@

run: $(VENV)/.made ## a million ad events: rolled up, looked up, exported, reconciled; then live, on a dashboard
	@$(BIN)/penstock demo

test: tools test-embedded test-servers ## every test; starts the servers that it needs, on free ports

test-embedded: postgres $(VENV)/.made-test ## all tests that need neither Kafka nor HBase nor Storm
	@$(BIN)/python -c 'from penstock.kernels import backend; assert backend == "compiled", f"the kernels are not compiled: {backend}"'
	$(BIN)/python -m ruff check .
	PENSTOCK_BROWSER=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not servers"

test-servers: tools $(VENV)/.made-test ## those that do
	@export PENSTOCK_STACK="$${PENSTOCK_STACK:-$(CURDIR)/build/stack}" PENSTOCK_SERVERS=1; \
	trap '$(BIN)/penstock stack down --wipe' EXIT; \
	$(BIN)/penstock stack up && $(BIN)/python -m pytest -m servers --durations=15

tools: postgres ## what of the system the tests need, asked for by name where it is missing
	@{ command -v java || [ -n "$$JAVA_HOME" ]; } >/dev/null && command -v mvn >/dev/null || { \
	echo "The tests run real servers: Java 17 and Maven. Debian: apt-get install openjdk-17-jdk-headless maven"; \
	echo "make test-embedded runs those that need neither Kafka nor HBase nor Storm."; exit 1; }
	@command -v chromium >/dev/null || { \
	echo "Chromium is missing: the dashboard's tests drive it. Debian: apt-get install chromium"; exit 1; }

postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	echo "PostgreSQL is missing: the tests of the Redshift warehouse run on it. Debian: apt-get install postgresql"; exit 1; }

test-fast: $(VENV)/.made-test ## unit and contract tests alone
	$(BIN)/python -m pytest -n 2 -m "not servers" tests/unit tests/contract

bench: $(VENV)/.made-test ## the benchmarks; writes bench/results.json
	$(BIN)/python -m bench

bench-servers: $(VENV)/.made-test ## those on real Kafka, HBase and Storm
	@export PENSTOCK_STACK="$${PENSTOCK_STACK:-$(CURDIR)/build/stack}"; trap '$(BIN)/penstock stack down --wipe' EXIT; \
	$(BIN)/penstock stack up && $(BIN)/python -m bench --servers

lint: $(VENV)/.made-test ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

clean: ## remove what was built
	rm -rf $(VENV) build demo-data src/penstock/kernels/*.c src/penstock/kernels/*.so src/*.egg-info
