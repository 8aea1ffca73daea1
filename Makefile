# `make demo` and `make test` need Python >= 3.11 and nothing else: each builds .venv when it must.
# The Python that constraints.txt was made with comes first.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: help demo test test-archive fuzz soak docs dist lint format clean

help:
	@echo "make demo    train on real APOGEE stars, predict unseen ones, write demo/report/report.html"
	@echo "make test    run every test and every documented example"
	@echo "make test-archive  fetch from a real TAP server, installed with apt-get (needs root)"
	@echo "make fuzz    read damaged files of every kind for three minutes (INPUTS=N SECONDS=S SEED=S)"
	@echo "make soak    kill every command that writes, 60 times, and compare (KILLS=N SEED=S)"
	@echo "make docs    build the site into docs/_build/html, running every notebook on it"
	@echo "make dist    build the source distribution and the wheel into dist/"
	@echo "make lint    style (ruff), types (mypy), spelling (codespell)"
	@echo "make format  put the code into ruff's format"
	@echo "make clean   remove .venv and caches"

demo: .venv/.installed
	$(BIN)/xplabels demo --output demo

# one process per core, each on one core
test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

# A full TAP server (DaCHS on PostgreSQL) beside the services of the default tests. It installs
# Debian packages, so it needs root; the server stops afterwards, packages and database stay.
test-archive: .venv/.installed-dev
	tests/services/dachs/serve.sh run "$(CURDIR)/$(BIN)/python" \
		$(BIN)/python -m pytest tests/test_fetch_dachs.py

# What fails stays in the folder fuzz. INPUTS alone sets how many are read, however long it takes.
SEED ?= 0
fuzz: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --seed $(SEED) \
		$(if $(INPUTS),--inputs $(INPUTS)) $(if $(SECONDS),--seconds $(SECONDS))

soak: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kills.py --kills $(or $(KILLS),60) --seed $(SEED)

# Warnings are errors, and so is a link that leads nowhere. Without the notebooks, to look at a page:
# make docs SPHINX="-D nb_execution_mode=off"
docs: .venv/.installed-docs
	rm -rf docs/_build docs/_generated
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -j auto -q \
		$(SPHINX) docs docs/_build/html
	$(BIN)/python docs/links.py docs/_build/html

dist: .venv/.installed-dev
	rm -rf dist
	$(BIN)/python -m build

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist docs/_build docs/_generated src/xplabels.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: Python >= 3.11 is needed (make PYTHON=/path/to/python3.11)"; exit 1; }
	$(PYTHON) -m venv .venv

# The stamps let a second run skip pip; they age when what is to be installed changes.
.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[library]'
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[library,dev]'
	@touch $@ .venv/.installed

.venv/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[docs]'
	@touch $@ .venv/.installed
