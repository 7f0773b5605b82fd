# Streambank: the commands. `make` lists them. What they need and make lies under .local/ and .venv/.
SHELL := /bin/bash
LOCAL := $(abspath $(or $(STREAMBANK_LOCAL),.local))
PYTHON := .venv/bin/python
# tests at once: some wait for a time-out while others use the cores
JOBS ?= 5
UV_VERSION := 0.13.9
# uv of this machine, else one of our own, installed once
UV := $(or $(shell command -v uv 2>/dev/null),$(LOCAL)/uv/bin/uv)
CHECKED := domain topics schemas streaming agents gateway outbound resilience stores proof travel logs.py settings.py \
	pipeline.py command_line deploy rendering banking reports

# without compiled files each process that starts compiles all modules anew: twice the time to be ready
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run up down status wipe demo test check bench chaos schemas

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: .venv/locked ## install what Python needs (.venv), fetch Kafka and the stores (.local)
	@$(PYTHON) -m deploy.local fetch

.venv/locked: pyproject.toml uv.lock
	@command -v python3 >/dev/null || { echo "python3 (3.11 or 3.12) is missing: install it"; exit 1; }
	@[ -x "$(UV)" ] || { echo "installing uv …"; python3 -m venv "$(LOCAL)/uv" \
		&& "$(LOCAL)/uv/bin/pip" install -q uv==$(UV_VERSION); } \
		|| { echo "uv could not be installed: install python3-venv, or uv itself"; exit 1; }
	@echo "installing the locked dependencies …"
	@"$(UV)" sync -q --locked --compile-bytecode
	@touch $@

run: setup ## everything in the foreground; Ctrl-C stops all
	@exec $(PYTHON) -m deploy.local run

up: setup ## everything in the background; returns when ready
	@exec $(PYTHON) -m deploy.local up

down: .venv/locked ## stop what `make up` started; the data stays
	@exec $(PYTHON) -m deploy.local down

status: .venv/locked ## what runs, and where
	@exec $(PYTHON) -m deploy.local status

wipe: .venv/locked ## remove all data, secrets and logs of the stopped system
	@exec $(PYTHON) -m deploy.local wipe

demo: setup ## a scenario over HTTP, on the running system or one started for it
	@exec $(PYTHON) -m deploy.local.demo

# in the order of the folders; which run in one process `tests/conftest.py` says
test: setup ## all tests on a real Kafka and real stores
	@exec $(PYTHON) -m pytest -m "not long" -n $(JOBS) --no-loadscope-reorder \
		--max-worker-restart 0 $(TESTS)

check: .venv/locked ## format, lint, types, house rules, pure tests: no broker
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy $(CHECKED)
	@$(PYTHON) -m pytest -q tests/test_tidy.py tests/domain

schemas: .venv/locked ## release changed Avro schemas, or say why they may not be
	@$(PYTHON) -m schemas.lock

bench: setup ## measure this machine: driver, transfers, latency, gateway
	@exec $(PYTHON) -m bench

chaos: setup ## the failure tests in their long form
	@exec $(PYTHON) -m pytest -m long -n 1 --max-worker-restart 3 -o faulthandler_timeout=7500 tests
