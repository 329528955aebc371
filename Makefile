# `make demo` and `make test` need only Python 3.11 or newer, git and make.
# PIP_ARGS is passed to every pip call, for example to name PyTorch's index of CPU-only builds.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
WORKERS ?= auto
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint types unit wheel bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   install, then learn an atlas from real photographs (about two minutes)"
	@echo "make test   install the development extras, lint, check types and run all tests in WORKERS processes"
	@echo "make bench NAME=som   run one benchmark and save its table under benchmarks/results/"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "imatlas needs Python 3.11 or newer, and '$(PYTHON)' is older; choose another with 'make demo PYTHON=python3.12'."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp per set of packages: pip runs only when the requirements have changed.
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
