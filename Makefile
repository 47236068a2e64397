# Each target does all of its own set-up, in .venv; it needs Python 3.11 or newer and make.

PYTHON ?= python3
BACKEND ?= asyncio
PORT ?= 8000
MINUTES ?= 20
REPEATS ?= 200
WORKERS ?=
TEST_PROCESSES ?= logical
PYTHONS ?= python3.11 python3.12 python3.13

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A process for each core. The tests end when make does, even if it is killed (tests/support/guard.py).
PYTEST := END_WITH=$$PPID $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --maxprocesses 8 --dist worksteal --benchmark-disable

.DEFAULT_GOAL := help
.PHONY: help serve test test-faults test-nginx test-ray test-wheel recipes nightly stress test-library test-pythons soak check bench bench-all train docs site release lock clean

help:
	@echo "make serve         run the server on port $(PORT); BACKEND=threading or asyncio; WORKERS=4 has four front ends"
	@echo "make test          run the tests"
	@echo "make test-faults   run the faults of real servers; FAULT_REPEATS=20 repeats what depends on chance"
	@echo "make test-nginx    run the settings for nginx of docs/operations.md; nginx has to be installed"
	@echo "make test-ray      run the tests on Ray Serve, on this machine alone"
	@echo "make test-wheel    serve a model from the wheel, in an empty environment"
	@echo "make recipes       run the programs that need large packages, in an environment of their own"
	@echo "make nightly       run all tests ten times, alone and on a busy machine, and kill ten runs"
	@echo "make stress        run the library's tests with threads that switch always, and its races REPEATS=200 times"
	@echo "make test-library  run the tests of the library alone, without the server and TensorFlow"
	@echo "make test-pythons  run the same with each of PYTHONS='python3.11 python3.12 python3.13'"
	@echo "make soak          load each backend for MINUTES=20, with failures and clients that leave"
	@echo "make check         run the linters and type checkers"
	@echo "make bench         measure a short version of BENCHMARK.md, in under ten minutes"
	@echo "make bench-all     measure BENCHMARK.md anew, with the peers, in about three hours; 'python -m benchmarks long' measures the rest"
	@echo "make train         train the model anew and write assets/diabetes.*"
	@echo "make docs          write the tables of options, settings and recipes in README.md and docs, from the code"
	@echo "make site          build the documentation in build/site, and check its links"
	@echo "make release       build the wheel and the source distribution in dist, and check them"
	@echo "make lock          pin the newest versions in requirements/"
	@echo "make clean         remove what the other targets have made"

# A stamp for each set of packages: made once, and again when its list changes.
$(VENV)/made:
	@echo "== Making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": set PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/%.installed: requirements/%.txt $(VENV)/made
	@echo "== Installing the packages of $<, the first time a few minutes"
	@$(PIP) install --require-hashes -r $<
	@touch $@

# torch has no hash, because its files differ by processor. Where pip finds a build for the CPU alone, it takes that.
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
RECIPES := $(VENV)/recipes/bin/python

$(VENV)/recipes/installed: requirements/recipes.txt $(VENV)/made
	@echo "== Installing $(TORCH) and the packages of $<: some minutes, more than 1 GB"
	@$(PYTHON) -m venv $(VENV)/recipes
	@$(RECIPES) -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r $<
	@$(RECIPES) -m pip --disable-pip-version-check --quiet install $(TORCH)
	@touch $@

# One process, or with WORKERS=4 one process with the model and four front ends.
serve: $(VENV)/server.installed
	@echo "== Starting the server with backend $(BACKEND): http://127.0.0.1:$(PORT)/docs"
ifeq ($(WORKERS),)
	@BATCHER_BACKEND=$(BACKEND) exec $(BIN)/python -m uvicorn server.app:app --host 127.0.0.1 --port $(PORT) --ws none --timeout-keep-alive 75
else
	@BATCHER_BACKEND=$(BACKEND) BATCHER_MODEL=server.workers:ExampleModel exec $(BIN)/python -m batchers.serving --workers $(WORKERS) --port $(PORT) --path /optimized_predict --alone /predict --timeout-keep-alive 75
endif

test: $(VENV)/dev.installed
	@echo "== Running the tests"
	@$(PYTEST) tests --ignore tests/faults --ignore tests/ray

# The library alone, without the server and TensorFlow.
LIBRARY_TESTS := tests/arrays tests/core tests/policies tests/drivers tests/contract tests/properties tests/remote

test-library: $(VENV)/test.installed
	@echo "== Running the library's tests with $$($(BIN)/python --version)"
	@$(PYTEST) $(LIBRARY_TESTS)

test-pythons:
	@for python in $(PYTHONS); do \
		mkdir -p .venv/pythons && $(MAKE) --no-print-directory test-library VENV=.venv/pythons/$$python PYTHON=$$python || exit 1; \
	done

stress: $(VENV)/test.installed
	@echo "== Running the library's tests with threads that switch at every chance"
	@SWITCH_INTERVAL=0.000001 $(PYTEST) $(LIBRARY_TESTS)
	@echo "== Running its races $(REPEATS) times, in processes of 10 times: pytest keeps all tests that it has collected"
	@for done in $$(seq 0 10 $$(( $(REPEATS) - 1 ))); do \
		left=$$(( $(REPEATS) - done )); \
		$(PYTEST) -m race -q --count $$(( left < 10 ? left : 10 )) -x $(LIBRARY_TESTS) || exit 1; \
	done

# Build the wheel, and serve a model from it in an empty environment.
test-wheel: $(VENV)/dev.installed
	@echo "== Serving a model from the wheel, in an empty environment"
	@$(BIN)/python -m tests.wheel >/dev/null

recipes: $(VENV)/dev.installed $(VENV)/recipes/installed
	@echo "== Checking the types of functions that return tensors"
	@$(BIN)/python -m tests.typing.check tensors
	@echo "== Running the recipes of PyTorch, ONNX Runtime, Flask, Django, aiohttp, gRPC, Celery and notebooks"
	@$(RECIPES) -m pytest -q -c /dev/null --rootdir . --noconftest -p no:cacheprovider tests/recipes/frameworks.py
	@echo "== Embedding texts of different lengths, in short"
	@$(RECIPES) -m benchmarks.lengths.program >/dev/null

soak: $(VENV)/dev.installed
	@echo "== Loading each backend for $(MINUTES) minutes"
	@$(BIN)/python -m benchmarks.faults.soak --minutes $(MINUTES)

# Ray starts by itself, on this machine alone, and warns of its own use of pydantic.
test-ray: $(VENV)/dev.installed
	@echo "== Running the tests on Ray Serve"
	@END_WITH=$$PPID $(BIN)/python -m pytest -q -p no:xdist -W ignore tests/ray

# More of them: FAULT_REPEATS=20 make test-faults
test-faults: $(VENV)/dev.installed
	@echo "== Running the fault tests"
	@$(PYTEST) tests/faults

# Parts of it: NIGHTLY="--runs 4 5 --kills 0"
nightly: $(VENV)/dev.installed
	@$(BIN)/python -m tests.nightly $(NIGHTLY)

test-nginx: $(VENV)/dev.installed
	@command -v nginx >/dev/null || { echo "error: nginx is missing: install Debian's package nginx-light, or yours" >&2; exit 1; }
	@echo "== Running the tests behind nginx"
	@$(PYTEST) -m nginx tests/faults

check: $(VENV)/dev.installed
	@echo "== Checking style, types and the direction of imports"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.typing.check
	@$(BIN)/python -m pytest -q tests/test_project.py

bench: $(VENV)/dev.installed
	@echo "== Measuring, then writing the tables of BENCHMARK.md and what is in assets"
	@$(BIN)/python -m benchmarks quick

bench-all: $(VENV)/peers.installed
	@command -v wrk >/dev/null || echo "== wrk is missing (Debian's package wrk): the servers will not be measured"
	@$(BIN)/python -m benchmarks all

train: $(VENV)/dev.installed
	@$(BIN)/python -m server.train

# Versions and hashes for every supported Python, without the address of any registry.
# make lock UPGRADE= pins what is new in pyproject.toml and leaves the other versions as they are.
UPGRADE ?= --upgrade
LOCKED := --quiet --universal --python-version 3.11 $(UPGRADE) \
	--generate-hashes --no-emit-index-url --no-annotate --no-header
COMPILE := $(BIN)/uv pip compile pyproject.toml $(LOCKED)

docs: $(VENV)/dev.installed
	@$(BIN)/python docs/tables.py

site: $(VENV)/dev.installed
	@echo "== Building the documentation in build/site, and checking its links"
	@$(BIN)/python -m tests.site

release: $(VENV)/dev.installed
	@echo "== Building dist"
	@rm -rf dist
	@$(BIN)/python -m hatchling build >/dev/null
	@$(BIN)/python -m twine check --strict dist/*

lock: $(VENV)/made
	@$(PIP) install uv
	@$(COMPILE) --all-extras $(addprefix --group ,peers bench train test tools site mutation) \
		--output-file requirements/peers.txt
	@$(COMPILE) --all-extras $(addprefix --group ,bench train test tools site) \
		--constraints requirements/peers.txt --output-file requirements/dev.txt
	@$(COMPILE) --group test --constraints requirements/peers.txt --output-file requirements/test.txt
	@$(COMPILE) --extra serving --group recipes --no-emit-package torch --output-file requirements/recipes.txt
	@$(COMPILE) --extra serving --group server --constraints requirements/peers.txt --output-file requirements/server.txt

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .benchmarks mutants
