# `make demo` and `make test` set everything up first, in .venv; only once.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
QUICK := losses sampling bfp non_local roi_heads rpn soft_nms
REPLACE := $(if $(filter file default undefined,$(origin PYTHON)),,--replace)

.PHONY: help setup browser demo test quick project lint format docs dist bench clean

help:
	@echo "make setup [PYTHON=python3.12]  install everything into $(VENV)"
	@echo "make demo                       train, evaluate and show a detector on built-in data"
	@echo "make test                       formatter, linter, spelling and all tests"
	@echo "make quick                      the tests of one minute"
	@echo "make project                    the tests of documents, workflows and packaging"
	@echo "make lint                       formatter, linter and spelling, without tests"
	@echo "make format                     format the code"
	@echo "make docs                       build the documentation site into site"
	@echo "make dist                       build the source distribution and the wheel into dist"
	@echo "make bench                      benchmarks of the components"

setup:
	@$(PYTHON) tools/setup_env.py --venv $(VENV) $(REPLACE)

demo: setup
	@$(PY) -m libra_d2.cli.main demo

test: setup lint browser
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal

quick: setup
	@$(PY) -m pytest -n auto --maxprocesses 4 -m "not slow" tests/project $(QUICK:%=tests/modeling/test_%.py)

project: setup
	@$(PY) -m pytest -q tests/project

browser:
	@$(PYTHON) tools/setup_browser.py

lint: setup
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(VENV)/bin/codespell
	@out=$$($(VENV)/bin/lint-imports --no-logo --no-cache) || { echo "$$out"; exit 1; }

format: setup
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

dist: setup
	@$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .
	@$(PY) -c "from setuptools.build_meta import build_sdist; build_sdist('dist')" >/dev/null

bench: setup
	@for f in benchmarks/bm_*.py; do $(PY) $$f || exit 1; done

clean:
	rm -rf $(VENV) output build dist site *.egg-info
