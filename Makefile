# Everything starts from a machine that has python3 (3.11 or newer) and make, and nothing else.
#
#   make demo    build a store of real indexes, break its ingestion in four ways, watch it come back
#   make test    run all tests                      make test ARGS="tests/guard -x"
#   make test-fast  a few tests of each file, in about a minute
#   make lint    formatter, linter, type checker, import contract
#   make clean   remove whatever the above made

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 4
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CODE := novabackup tests examples benchmarks

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint clean

help:
	@sed -n 's/^#  *make /make /p' Makefile

# A stamp for each step, so that a second run installs nothing.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "novabackup needs Python 3.11 or newer, found " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.package: $(VENV)/.made pyproject.toml
	@echo "Installing novabackup ..."
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.package
	@echo "Installing the tools of the tests and linters ..."
	@$(PIP) install --quiet --group test --group lint
	@touch $@

demo: $(VENV)/.package
	@$(BIN)/python examples/demo.py

test: $(VENV)/.tools
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

test-fast: $(VENV)/.tools
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --fast $(ARGS)

lint: $(VENV)/.tools
	$(BIN)/python -m ruff check $(CODE)
	$(BIN)/python -m ruff format --check $(CODE)
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist demo-store
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
