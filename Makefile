# On a fresh Debian 12 or 13 with Python 3.11+, git and make, as root: `make demo`, `make test`.

BIN := .venv/bin
PATH := $(CURDIR)/$(BIN):$(PATH)
export PATH

.PHONY: help setup demo test unit lint format run bench clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' Makefile

setup: ## install what is missing and build .venv
	@scripts/setup

demo: setup ## run the engine through its paces, and leave nothing behind
	@$(BIN)/python scripts/demo

test: lint ## all checks and tests
	$(BIN)/pytest

unit: setup ## the tests that need neither root nor containers
	$(BIN)/pytest -m "not real" tests/unit

lint: setup ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

run: setup ## an engine in the foreground, on a socket of its own; ARGS="--icc=false" adds options
	@echo "export DOCKER_HOST=unix:///run/engine.sock"
	@exec $(BIN)/engine daemon --data-root /var/lib/engine --exec-root /run/engine --pidfile /run/engine.pid \
	  -H unix:///run/engine.sock $(ARGS)

bench: setup ## latencies; REFERENCE=unix:///run/docker.sock pairs them with another engine
	$(BIN)/python benchmarks/run_latency.py $(if $(REFERENCE),--reference $(REFERENCE))

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
