# `make demo` and `make test` need nothing but Python >= 3.10: they create .venv and install into it first.
PYTHON ?= python3
TORCH_INDEX ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install -c constraints.txt
# At most 8 workers: each one holds its own copy of torch.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

.PHONY: help install demo test test-slow test-all lint clean distclean

help:
	@echo "make demo       train on digits, save, reload, draw pictures"
	@echo "make test       fast tests"
	@echo "make test-slow  slow tests"
	@echo "make test-all   every test, full products of configurations included"
	@echo "make lint       ruff and mypy"
	@echo "make clean      remove caches and build output (make distclean: .venv too)"
	@echo "Variables: PYTHON (to create .venv), TORCH_INDEX (index to install torch from), PYTEST_ARGS"

# The stamp is written last, so an interrupted installation starts again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is missing or older than Python 3.10; choose another one: make PYTHON=python3.12"; exit 1; }
	@rm -f $(STAMP)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP_INSTALL) torch --index-url $(TORCH_INDEX))
	$(PIP_INSTALL) -e ".[dev]"
	@touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

test: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(PYTEST) -m "slow and not full" --durations=15 $(PYTEST_ARGS)

test-all: $(STAMP)
	$(PYTEST) -m "" --durations=15 $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find modeling_sft lab scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
