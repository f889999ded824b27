# `make demo` and `make test` need Python 3.11 or newer, make and git; all else they install into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# one thread a process: results then repeat, and two processes use two cores better than one with two threads
export OMP_NUM_THREADS ?= 1
JOBS ?= 2
# a file's fixtures are costly, so one process runs the whole file; tests/conftest.py puts the longest files first
PARALLEL = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# the tests start many processes: without bytecode on disk, each compiles the libraries anew, for 4 seconds
unexport PYTHONDONTWRITEBYTECODE

# everything that is downloaded must have a hash of these files. Of torch a machine may have a build of its own:
# `make install TORCH=torch==2.13.0` takes it by its version alone
HASHED := constraints.txt constraints-torch.txt constraints-torch-cpu.txt constraints-cuda.txt
TORCH ?= --require-hashes -r constraints-torch.txt
PIP := $(BIN)/python -m pip
# Python compiles what is imported, a part of what is installed: compiling all of it took as long as the rest
INSTALL := $(PIP) install --quiet --no-compile --no-deps

.PHONY: demo test coverage families test-slow test-deployment docs docs-check pages install constraints lint types release-check clean help

help:
	@echo "make demo       install, then run the demo: report in runs/demo/report.html (under 4 minutes once installed)"
	@echo "make test       install, then lint, format check, types and tests"
	@echo "make docs-check  whether the pages say what the records of experiments say; part of the tests"
	@echo "make pages      write the tables of the pages, and figures that differ, anew from the records"
	@echo "make docs       build the documentation site in site/; a broken link or reference is an error"
	@echo "make coverage   the tests, and which lines of the package no test of this process runs; too many are an error"
	@echo "make families   whether divided runs of further families of pipelines equal their stock calls"
	@echo "make test-slow  the checks that take minutes each"
	@echo "make constraints  write anew which versions are installed, and their hashes"
	@echo "make release-check  build sdist and wheel, and try them from a local index: see CONTRIBUTING.md"
	@echo "make test-deployment  a server and devices as processes of their own, on this machine"

install: $(VENV)/.installed

# what the commands of the project need, and then what its developers need
$(VENV)/.runs: pyproject.toml $(HASHED)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedaigc needs Python 3.11 or newer, got " + sys.version.split()[0] + ": set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	# without an NVIDIA driver, a build for CPUs spares gigabytes, where this machine's indexes offer it
	command -v nvidia-smi > /dev/null || $(INSTALL) --require-hashes -r constraints-torch-cpu.txt 2> /dev/null || true
	$(INSTALL) $(TORCH)
	$(INSTALL) --require-hashes -r constraints.txt
	if $(BIN)/python -c 'from importlib.metadata import requires; raise SystemExit(not any(r.startswith(("nvidia-", "cuda-")) for r in requires("torch")))'; \
		then $(INSTALL) --require-hashes -r constraints-cuda.txt; fi
	$(INSTALL) --no-build-isolation --no-index --editable .
	$(PIP) check
	touch $@

$(VENV)/.installed: $(VENV)/.runs constraints-dev.txt
	$(INSTALL) --require-hashes -r constraints-dev.txt
	$(PIP) check
	touch $@

# in an environment of an earlier `make install`: the files need not fit pyproject.toml yet
constraints:
	$(BIN)/python .ci/lock.py

demo: $(VENV)/.runs
	$(BIN)/fedaigc demo

test: install lint types
	$(PARALLEL)

families: install
	$(BIN)/python -m pytest -m families tests/diffusion/families

test-slow: install
	$(BIN)/python -m pytest -m slow --ignore tests/deployment

test-deployment: install
	$(BIN)/python -m pytest -m slow tests/deployment

coverage: install
	$(PARALLEL) --cov --cov-report=term

docs-check: install
	$(BIN)/python -m experiments.pages.check

pages: install
	$(BIN)/python -m experiments.pages.check --write

# without the advertisement that the theme prints
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

release-check: install
	$(BIN)/python .ci/release.py

clean:
	rm -rf $(VENV) dist runs site .pytest_cache .mypy_cache .ruff_cache
