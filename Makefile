# `make demo` and `make test` set everything up first, in .venv; only once.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
REPLACE := $(if $(filter file default undefined,$(origin PYTHON)),,--replace)

.PHONY: help setup browser demo test lint format bench clean

help:
	@echo "make setup [PYTHON=python3.12]  install everything into $(VENV)"
	@echo "make demo                       train, evaluate and show a detector on built-in data"
	@echo "make test                       formatter, linter and all tests"
	@echo "make bench                      benchmarks of the components"

setup:
	@$(PYTHON) tools/setup_env.py --venv $(VENV) $(REPLACE)

demo: setup
	@$(PY) -m libra_d2.cli.main demo

test: setup lint browser
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal

browser:
	@$(PYTHON) tools/setup_browser.py

lint: setup
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

format: setup
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: setup
	@for f in benchmarks/bm_*.py; do $(PY) $$f || exit 1; done

clean:
	rm -rf $(VENV) output build *.egg-info
