# Everything runs in .venv, which the first target that needs it makes from
# pyproject.toml and constraints.txt; later runs install nothing again.
.DEFAULT_GOAL := help
.PHONY: help install demo test fuzz lint bench test-native clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The native extensions live in an environment of their own, so that `make test` stays without them.
NATIVE := .venv-native
NATIVE_READY := $(NATIVE)/.ready

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## Create .venv with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[bench,sweep,deploy,viz,dev]"
	@touch $@

demo: $(READY) ## Train on GPVAR-AZ, compare with tsl's RNN, draw the learned graph
	$(BIN)/python -m benchmarks.demo

test: $(READY) ## Run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

fuzz: $(READY) ## Try 20,000 wild arguments, inputs and files
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_fuzz.py --hypothesis-profile=long

lint: $(READY) ## Check style and types (ruff, mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## Measure the speed of the layers and models
	$(BIN)/python -m benchmarks.speed

$(NATIVE_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(NATIVE)
	$(NATIVE)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[bench,sweep,deploy,viz,dev]" "setuptools>=77" wheel
	$(NATIVE)/bin/python -m pip install --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[native]"
	@touch $@

test-native: $(NATIVE_READY) ## Build torch-scatter and torch-sparse, run the tsl-facing tests on them
	OMP_NUM_THREADS=1 $(NATIVE)/bin/python -m pytest -m tsl

clean: ## Remove environments, caches, builds and runs
	rm -rf $(VENV) $(NATIVE) build dist *.egg-info logs outputs multirun results.jsonl attention.png .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
