# make demo    from a fresh clone to a model that thinks
# make test    all tests, lint and types
# make clean   removes .venv and caches; runs stay
#
# PYTHON: 3.11 or newer.  VENV: where the virtual environment goes.  CONSTRAINTS: exact versions; empty for the newest.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt

RUN = $(VENV)/bin/python
READY = $(VENV)/.ready

.PHONY: demo test check clean tiny-base

demo: $(READY)
	$(RUN) cli.py fit --config configs/demo.yaml
	$(RUN) cli.py generate --prompt "Solve x + 5 = 12"

test: $(READY) check
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

# what a change must pass beside the tests
check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

tiny-base: $(READY)
	$(RUN) assets/make_tiny_qwen.py

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else "Python %d.%d is too old: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
