# make demo      fit all counties, 40 also by the recipe, write out/        COUNTIES=, RECIPE=, WORKERS=a number
# make test      lint, types, import contracts, tests: in ten minutes on two cores       PYTEST="options"
# make test-all  the same with the slow tests: kills, interrupts, soaks, clusters, examples
# make lint      the same without the tests
# make clean     remove what make has made
#
# Each makes the virtual environment it needs (VENV=.venv) with PYTHON=python3, and installs into it once.

PYTHON ?= python3
VENV ?= .venv
COUNTIES ?= all
RECIPE ?= 40
OUT ?= out
PYTEST ?= -n 2 --dist loadfile
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
SOURCES = pyproject.toml setup.py
comma = ,

.DEFAULT_GOAL = help
.PHONY: help demo test test-all lint ruff types contracts clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.demo
	$(BIN)/python examples/county_demo.py --counties $(COUNTIES) --recipe $(RECIPE) --out $(OUT) $(if $(WORKERS),--workers $(WORKERS))

test: lint
	$(BIN)/python -m pytest -m "not slow" $(PYTEST)

test-all: lint
	$(BIN)/python -m pytest $(PYTEST)

lint: ruff types contracts

ruff: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy --strict parfit

contracts: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

# What is installed, by the stamp that each install leaves. `dev` holds all that the demo needs.

$(VENV)/.demo: $(VENV)/.venv $(SOURCES)
	@if [ -e $(VENV)/.dev ] && ! [ pyproject.toml -nt $(VENV)/.dev ]; then touch $@; \
	else $(call install,jax$(comma)plot); fi

$(VENV)/.dev: $(VENV)/.venv $(SOURCES)
	@$(call install,dev)

$(VENV)/.venv:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "There is no '$(PYTHON)' here: install Python 3.11 or later, or name one: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "parfit needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) lacks venv or pip. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

define install
echo "Installing parfit[$(1)] into $(VENV); this takes a minute"; \
$(PIP) install --quiet --editable ".[$(1)]" && touch $@ || \
{ echo "pip could not install it (see above). It needs a network, or an index that it can reach."; exit 1; }
endef

clean:
	rm -rf build dist *.egg-info $(if $(wildcard $(VENV)/.venv),$(VENV)) $(OUT)/county_params.csv $(OUT)/loss_histogram.*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	-@rmdir $(OUT) 2>/dev/null || true
