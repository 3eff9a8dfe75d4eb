# `make demo` and `make test` set themselves up: they need Python 3.11+, make and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test quick check coverage package bench torture fuzz clean

demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py

test: check
	$(BIN)/python -m pytest -n auto

# The one-minute loop: no campaigns, and none of the tests that start many processes.
quick: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto -m "not slow and not campaign"

check: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

# Builds the sdist and the wheel, checks them, and runs the demo from the installed wheel.
package: $(VENV)/.ready
	rm -rf dist .venv-package
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv .venv-package
	.venv-package/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd dist && ../.venv-package/bin/python ../examples/demo.py

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/bench.py

torture: $(VENV)/.ready
	TRIBAL_CAMPAIGN=full $(BIN)/python -m pytest -m campaign -s -o faulthandler_timeout=36000

fuzz: $(VENV)/.ready
	TRIBAL_FUZZ=500000 $(BIN)/python -m pytest -k fuzz -s -o faulthandler_timeout=36000

clean:
	rm -rf .venv .venv-* dist

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("tribal-mcp needs Python 3.11 or newer, and $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@
