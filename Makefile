# Everything a newcomer types. `make demo` and `make test` do all set-up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
# Some images of Python set it. Nothing compiled would be kept: each program that the tests start would compile Carillon
# again, and each process of pytest every test, which doubles what collecting them takes.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test up check chaos bench lock

help: ## Show what there is to type.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Carillon needs Python 3.11 or newer: make PYTHON=python3.x")'
	@echo "Installing Carillon into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## Run a real campaign, from a contact list to the inbox.
	@$(BIN)/carillon demo

up: $(READY) ## Start the whole stack and keep it running.
	@$(BIN)/carillon up

test: $(READY) ## Run every test.
	@# The chaos tests keep one process, most of the time waiting; the others take file after file meanwhile.
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: $(READY) ## Run what CI runs: format, lint, types, import contracts, tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

chaos: $(READY) ## Do every kind of damage to a running stack, at full size.
	@$(BIN)/python -m tests.chaos

bench: $(READY) ## Measure, side by side with a reference (ARGS=--million: minutes more).
	@$(BIN)/python -m bench $(ARGS)

lock: ## Pin every dependency again (needs uv).
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url --extra dev pyproject.toml -o requirements.lock
