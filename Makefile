# make book   execute the chapters on this machine and render the book
# make test   run every test, each chapter at its smallest size included
# make test-machines   the tests that compute, as on three other machines (all: TESTS=tests)
# make lint   check the style of code and notebooks, and that no import looks up
# make clean  remove what these made (make distclean: the virtual environment too)
#
# Each makes the virtual environment by itself when it is missing or out of date.
# PROFILE=smoke, laptop or paper   JOBS=chapters or tests at a time   PYTHON=the interpreter
# TORCH_INDEX=the index of CPU wheels named on the PyTorch start page, to get the small build

SHELL := bash
.SHELLFLAGS := -o pipefail -c
VENV ?= .venv
PROFILE ?= laptop
JOBS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.installed
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help book test test-machines lint clean distclean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

book: $(READY)
	@echo "== book: executing the chapters at the $(PROFILE) profile, $(JOBS) at a time"
	$(BIN)/lipkit book --profile $(PROFILE) --jobs $(JOBS)

test: $(READY)
	@echo "== test: units, laws, chapters at the smoke profile, the rendered book in a browser"
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

test-machines: $(READY)
	@failed=""; for machine in $$($(BIN)/python -m lipkit.book.machines); do \
	  echo "== test-machines: as on machine $$machine"; \
	  env $$($(BIN)/python -m lipkit.book.machines $$machine) $(BIN)/python -m pytest \
	    -n $(JOBS) --dist loadfile $(or $(TESTS),tests/core tests/engine tests/lab tests/laws) \
	    || failed="$$failed $$machine"; done; \
	test -z "$$failed" || { echo "tests failed on machine$$failed"; exit 1; }

lint: $(READY)
	@echo "== lint: style of code and notebooks"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis dist build
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	@echo "== $(VENV): making the virtual environment (some minutes the first time)"
	@python=""; for p in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if $$p -c '$(SUPPORTED)' >/dev/null 2>&1; then python=$$p; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11, 3.12 or 3.13 is needed: install one, or name it with PYTHON=..."; exit 2; fi; \
	test -x $(BIN)/python || $$python -m venv $(VENV) || \
	  { $$python -m venv --clear --without-pip $(VENV) && \
	    $$python -m pip --python $(BIN)/python install --quiet pip; } || \
	  { echo "no virtual environment: on Debian and Ubuntu, apt-get install python3-venv"; \
	    rm -rf $(VENV); exit 2; }
	@echo "== $(VENV): installing the exact versions of requirements.lock"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock \
	  | sed '/already satisfied/d'
	@echo "== $(VENV): installing lipkit from this folder"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	$(BIN)/python -m pip check
	@touch $@
