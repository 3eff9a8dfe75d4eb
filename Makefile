# `make demo` and `make test` set themselves up: they need Python 3.11+, make and a package index.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench torture fuzz clean

demo: .venv/.ready
	$(BIN)/python examples/demo.py

test: check
	$(BIN)/python -m pytest -n auto

check: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.ready
	$(BIN)/python benchmarks/bench.py

torture: .venv/.ready
	TRIBAL_CAMPAIGN=full $(BIN)/python -m pytest -m campaign -s -o faulthandler_timeout=36000

fuzz: .venv/.ready
	TRIBAL_FUZZ=500000 $(BIN)/python -m pytest -k fuzz -s -o faulthandler_timeout=36000

clean:
	rm -rf .venv

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("tribal-mcp needs Python 3.11 or newer, and $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@
