# `make demo` and `make test` set themselves up: they need Python 3.11+, make and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test quick test-lowest check coverage package bench latency recall interop clients mutants torture fuzz sync-model clean

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

# The interfaces and bundles with the lower bounds of pyproject.toml, or the first versions that have
# wheels for this interpreter.
test-lowest: .venv-lowest/.ready
	.venv-lowest/bin/python -m pytest -n auto -m "not campaign" tests/cli tests/mcp_server tests/http_api tests/portability

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

# Installs other systems' programs from the package index, and reads what they write: docs/interop.md
interop: $(VENV)/.ready
	$(BIN)/python -m tests.interop.run

# Installs MCP clients from PyPI and npm, and has each call every tool: docs/clients.md
clients: $(VENV)/.ready
	$(BIN)/python -m tests.clients.run

# Changes the code and checks that a test fails: docs/mutation-testing.md. MUTANTS limits it to some.
MUTANTS ?= tribal_mcp.portability.* tribal_mcp.services.importing.*
mutants: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --group mutants
	$(BIN)/python -m mutmut run $(MUTANTS:%='%')
	$(BIN)/python -m mutmut results

# Measures how well recall finds memories; writes a part of docs/performance.md.
latency: $(VENV)/.ready
	PYTHONPATH=. $(BIN)/python benchmarks/latency.py 10000 100000

recall: $(VENV)/.ready
	PYTHONPATH=. $(BIN)/python benchmarks/recall.py

torture: $(VENV)/.ready
	TRIBAL_CAMPAIGN=full $(BIN)/python -m pytest -m campaign -s -o faulthandler_timeout=36000

fuzz: $(VENV)/.ready
	TRIBAL_FUZZ=500000 $(BIN)/python -m pytest -k fuzz -s -o faulthandler_timeout=36000
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile full -o faulthandler_timeout=36000

sync-model: $(VENV)/.ready
	TRIBAL_SYNC_SCHEDULES=1000000 TRIBAL_SYNC_RUNS=2000 TRIBAL_SYNC_KILLS=200 TRIBAL_SYNC_CARRIERS=50 $(BIN)/python -m pytest -s tests/portability/replication/test_model.py tests/services/sync -o faulthandler_timeout=36000

clean:
	rm -rf .venv .venv-* dist mutants

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("tribal-mcp needs Python 3.11 or newer, and $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

.venv-lowest/.ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet "uv>=0.7"
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --no-build --editable . --group dev
	touch $@
