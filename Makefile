# Everything runs in .venv, which the first target that needs it makes from
# pyproject.toml and constraints.txt; later runs install nothing again.
.DEFAULT_GOAL := help
.PHONY: help install demo test test-avx2 fuzz coverage lint docs notebooks audit bench test-native test-oldest dist clean

PYTHON ?= python3
# The one that constraints-oldest.txt is for.
OLDEST_PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demo needs a third of the packages: it does not wait for the others.
DEMO_READY := $(VENV)/.ready-demo
# The native extensions live in an environment of their own, so that `make test` stays without them.
NATIVE := .venv-native
NATIVE_READY := $(NATIVE)/.ready
# So do the oldest supported versions, and what is built to be handed out.
OLDEST := .venv-oldest
OLDEST_READY := $(OLDEST)/.ready
SMOKE := .venv-smoke
# Each is tried in an environment of its own, beside the packages that all need.
SMOKE_EXTRAS := report serve tune deploy viz polars holidays
AUDIT := .venv-audit
# A release whose weakness PyPI knows, if it can be asked.
ADVISORIES := https://pypi.org/pypi/torch/2.6.0/json
# Compiled where they are first imported: most modules never are.
PIP_INSTALL := bin/python -m pip install -q --disable-pip-version-check --no-compile
EVERYTHING := -e ".[bench,sweep,peers,tune,serve,deploy,report,viz,polars,holidays,dev,docs]"
# Those that come with the tool: no network is needed.
SCHEMA := $(BIN)/check-jsonschema -q --builtin-schema vendor.
# Two processes of one thread each.
PYTEST := bin/python -m pytest -n 2 --dist worksteal

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## Create .venv with the tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP_INSTALL) -c constraints.txt $(EVERYTHING)
	@touch $(DEMO_READY) $@

$(DEMO_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP_INSTALL) -c constraints.txt -e ".[demo]"
	@touch $@

demo: $(DEMO_READY) ## Train on GPVAR-AZ, compare with tsl's RNN, draw the learned graph
	$(BIN)/python -m benchmarks demo

test: $(READY) ## Run the whole test suite
	OMP_NUM_THREADS=1 $(VENV)/$(PYTEST)

test-avx2: $(READY) ## Run the tests of layers and models as on a CPU without bfloat16
	ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(VENV)/$(PYTEST) tests/nn tests/models

fuzz: $(READY) ## Try 28,000 wild arguments, inputs, layouts, tables and files
	OMP_NUM_THREADS=1 $(VENV)/$(PYTEST) tests/test_fuzz.py tests/engines/test_fuzz_layouts.py tests/forecaster/test_fuzz_readings.py --hypothesis-profile=long

coverage: $(READY) ## Run the whole test suite, at least 95 % of lines and branches of the package
	OMP_NUM_THREADS=1 $(VENV)/$(PYTEST) --cov

lint: $(READY) ## Check style, types and what GitHub reads (ruff, mypy, schemas)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SCHEMA)github-workflows .github/workflows/*.yml
	$(SCHEMA)github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(SCHEMA)github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA)dependabot .github/dependabot.yml
	$(SCHEMA)citation-file-format CITATION.cff

docs: $(READY) ## Build the site, in docs/_build/html; a warning is an error
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html

notebooks: $(READY) ## Run the tutorials again and keep what they print
	OMP_NUM_THREADS=1 $(BIN)/python docs/notebooks.py

audit: ## Look up known vulnerabilities of the tested versions; skipped where PyPI's advisories cannot be reached
	@$(PYTHON) -c "import json, urllib.request as u; assert json.load(u.urlopen('$(ADVISORIES)', timeout=10))['vulnerabilities']" 2> /dev/null || \
		{ echo "audit: skipped, for $(ADVISORIES) knows no advisories from here"; exit 0; }; \
	test -x $(AUDIT)/bin/pip-audit || \
		{ $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/$(PIP_INSTALL) "pip-audit>=2.7"; } && \
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

bench: $(READY) ## Measure the speed of the layers and models
	$(BIN)/python -m benchmarks speed

$(NATIVE_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(NATIVE)
	$(NATIVE)/$(PIP_INSTALL) -c constraints.txt $(EVERYTHING) "setuptools>=77" wheel
	$(NATIVE)/bin/python -m pip install --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[native]"
	@touch $@

test-native: $(NATIVE_READY) ## Build torch-scatter and torch-sparse, run the tsl-facing tests on them
	OMP_NUM_THREADS=1 $(NATIVE)/$(PYTEST) -m tsl

$(OLDEST_READY): pyproject.toml constraints-oldest.txt
	@command -v $(OLDEST_PYTHON) > /dev/null || \
		{ echo "The oldest versions need Python 3.11: make test-oldest OLDEST_PYTHON=/path/to/python3.11"; exit 1; }
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/$(PIP_INSTALL) -c constraints-oldest.txt $(EVERYTHING)
	@touch $@

test-oldest: $(OLDEST_READY) ## Run the test suite on the oldest supported versions (Python 3.11)
	OMP_NUM_THREADS=1 $(OLDEST)/$(PYTEST)

dist: $(READY) ## Build wheel and sdist, and try each, and each extra, in an empty environment
	rm -rf build dist
	$(BIN)/python -m build
	for file in dist/*.whl dist/*.tar.gz; do \
		rm -rf $(SMOKE) && $(PYTHON) -m venv $(SMOKE) && \
		$(SMOKE)/$(PIP_INSTALL) -c constraints.txt $$file && \
		$(SMOKE)/bin/python -I tests/smoke.py || exit 1; \
		for extra in $(SMOKE_EXTRAS); do \
			rm -rf $(SMOKE)-$$extra && $(PYTHON) -m venv $(SMOKE)-$$extra && \
			$(SMOKE)/bin/python -c "import site; print(site.getsitepackages()[0])" > \
				$$(echo $(SMOKE)-$$extra/lib/python3*/site-packages)/base.pth && \
			$(SMOKE)-$$extra/$(PIP_INSTALL) -c constraints.txt "$$file[$$extra]" && \
			$(SMOKE)-$$extra/bin/python -I tests/smoke_extras.py $$extra && \
			rm -rf $(SMOKE)-$$extra || exit 1; \
		done; \
	done

clean: ## Remove environments, caches, builds and runs
	rm -rf $(VENV) $(NATIVE) $(OLDEST) $(SMOKE)* $(AUDIT) build dist *.egg-info logs outputs multirun docs/_build docs/_figures docs/benchmarks docs/examples docs/[A-Z]*.md docs/constraints.txt results.jsonl attention.png .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
