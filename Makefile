# make demo         from a fresh clone to a model that thinks
# make quick        lint, types and the tests that start no process, without tests/cli; for a change under way
# make test         lint, types and all tests
# make test-oldest  the quick tests with the oldest versions that pyproject.toml allows
# make torture      kills, damage, disk errors, races, odd values and random texts: an hour on 2 cores at most
# make readme       the README's commands, word for word, in a fresh clone
# make clean        removes the virtual environments and caches; runs stay
#
# PYTHON: 3.11 or newer.  VENV: where the virtual environment goes.  CONSTRAINTS: exact versions; empty for the newest.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt

RUN = $(VENV)/bin/python
READY = $(VENV)/.ready
PYTEST = $(RUN) -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test quick quick-tests test-oldest torture check readme clean tiny-base

demo: $(READY)
	$(RUN) cli.py fit --config configs/demo.yaml
	$(RUN) cli.py generate --prompt "Solve x + 5 = 12"

test: $(READY) check
	$(PYTEST) -m "not torture"

quick: $(READY) check quick-tests

quick-tests: $(READY)
	$(PYTEST) --ignore tests/cli --ignore tests/benchmarks -m "not slow and not gpu and not torture"

test-oldest:
	$(MAKE) quick-tests VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

torture: $(READY)
	$(RUN) -m tests.torture --minutes 60 --write docs/reliability.md

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

readme: $(READY)
	$(RUN) tests/run_readme.py

tiny-base: $(READY)
	$(RUN) assets/make_tiny_qwen.py

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else "Python %d.%d is too old: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
