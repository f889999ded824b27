# `make demo` and `make test` need Python 3.11 or newer, make and git; all else they install into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# one thread a process: results then repeat, and two processes use two cores better than one with two threads
export OMP_NUM_THREADS ?= 1
JOBS ?= 2
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-slow test-deployment install lint types wheel clean help

help:
	@echo "make demo       install, then run the demo: report in runs/demo/report.html (under 4 minutes once installed)"
	@echo "make test       install, then lint, format check, types and tests"
	@echo "make test-slow  the checks that take minutes each"
	@echo "make test-deployment  a server and devices as processes of their own, on this machine"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedaigc needs Python 3.11 or newer, got " + sys.version.split()[0] + ": set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/fedaigc demo

test: install lint types
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow --ignore tests/deployment

test-deployment: install
	$(BIN)/python -m pytest -m slow tests/deployment

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf $(VENV) dist runs .pytest_cache .mypy_cache .ruff_cache
