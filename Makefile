# `make demo` and `make test` do all their own set-up: they need Python 3.11 or newer, git and make, nothing else.
# PIP_ARGS goes to every pip call; with it you can name an index, such as PyTorch's for CPU-only builds.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
WORKERS ?= auto
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint types unit wheel bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   install, then learn an atlas from real photographs and say where its report is (about two minutes)"
	@echo "make test   install with all extras, then lint, check types and run all tests, WORKERS files at a time"
	@echo "make bench NAME=som   one benchmark, its table saved under benchmarks/results/"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "imatlas needs Python 3.11 or newer, and '$(PYTHON)' is older; name another with 'make demo PYTHON=python3.12'."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of packages: pip runs again only when what it would install has changed.
$(VENV)/.core: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt $(PIP_ARGS) -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	@touch $@ $(VENV)/.core

demo: $(VENV)/.core
	$(BIN)/imatlas demo -o demo --overwrite

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(NAME)

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
