# `make demo` and `make test` need Python 3.11 to 3.13 and make; they make their own environment in .venv.
.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-operations check faults doctor compare gpu-check clean

# The first python that is new enough; `make PYTHON=/path/to/python3.12 demo` takes another.
NEW_ENOUGH := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed

help:
	@echo "make demo      raw video to deployed detections, on the embedded data set"
	@echo "make compare   the same budget for the single-frame comparator, and both in one table"
	@echo "make test      the test suite, killed trainings and the service included"
	@echo "make test-quick  without these two"
	@echo "make test-operations  real servers: a month of retraining in minutes, and kills of each of them"
	@echo "make check     ruff, mypy, codespell"
	@echo "make faults    kill a training at 20 random moments of each kind (minutes); make test tries a few"
	@echo "make doctor    what this machine has, and what each missing part would give"
	@echo "make gpu-check the plugin's kernels and whole streams on this machine's GPU: right, and how fast"
	@echo "make clean     remove the environment and caches; data, models and runs stay"

demo: $(INSTALLED)
	@$(BIN)/python -m pipelines.cli demo

# Two processes, a thread each. What takes seconds to make, one of them makes for both (make_once in tests/conftest.py).
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# These need a quiet machine.
OPERATIONS := tests/operations

test: $(INSTALLED)
	$(PYTEST) --ignore=$(OPERATIONS)

test-quick: $(INSTALLED)
	$(PYTEST) --ignore=$(OPERATIONS) --ignore=tests/faults --ignore=tests/deploy/service

test-operations: $(INSTALLED)
	$(BIN)/python -m pytest $(OPERATIONS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

faults: $(INSTALLED)
	LSTFE_FAULTS=20 $(BIN)/python -m pytest tests/faults

doctor: $(INSTALLED)
	@$(BIN)/python -m pipelines.cli doctor

compare: $(INSTALLED)
	@$(BIN)/python -m pipelines.cli compare

gpu-check: $(INSTALLED)
	@$(BIN)/python -m benchmarks.plugin docs/benchmarks
	@$(BIN)/python -m benchmarks.streaming docs/benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find lstfe deploy pipelines tests -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 of version 3.11, 3.12 or 3.13 in PATH;" \
		"install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "error: $(PYTHON) is not 3.11, 3.12 or 3.13 ($$($(PYTHON) --version 2>/dev/null || echo no Python at all));" \
		"name one that is: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv module;" \
		"on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 2; }
	@$(BIN)/python -c '' 2>/dev/null || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@if command -v uv >/dev/null; then \
		uv pip install --python $(BIN)/python --compile-bytecode --constraints constraints.txt --editable '.[dev]'; \
	else \
		$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@
