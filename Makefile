# `make demo` and `make test` set everything up first, in .venv; only once.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Tests without training and without a browser, of every package.
QUICK := libra_d2 $(addprefix tests/,project utils predictions data/datasets data/images data/checks \
	evaluation/analysis $(addsuffix .py,config/test_removed_keys config/test_user_modules \
	$(addprefix modeling/test_,losses sampling bfp non_local roi_heads rpn soft_nms fast_rcnn) \
	$(addprefix checkpoint/test_,checkpoint_files file_bounds safe_pickle weights_files) \
	data/test_transforms data/test_dataset_mapper evaluation/test_coco_metrics \
	$(addprefix visualization/test_,marks match_pictures detection_pictures) \
	inference/test_trained_detector inference/test_predictor export/test_agreement cli/test_cli \
	$(addprefix serving/test_,batching parameters guard) \
	$(addprefix planning/test_,limits sampling schedule) $(addprefix experiments/test_,design files) \
	$(addprefix engine/test_,ema solver hooks train_loop run_lock console reproducibility)))
REPLACE := $(if $(filter file default undefined,$(origin PYTHON)),,--replace)

.PHONY: help setup browser demo test coverage quick project lint lint-js format docs dist bench clean

help:
	@echo "make setup [PYTHON=python3.12]  install everything into $(VENV)"
	@echo "make demo                       train, evaluate and show a detector on built-in data"
	@echo "make test                       formatter, linter, spelling and all tests"
	@echo "make coverage                   the same, and the share of the package's lines that ran"
	@echo "make quick                      tests of all packages in a minute or so, without training"
	@echo "make project                    the tests of documents, workflows and packaging"
	@echo "make lint                       formatter, linter and spelling, without tests"
	@echo "make lint-js                    linter of the pages' JavaScript (needs Node.js)"
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

coverage: setup lint browser
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal --cov libra_d2 --cov-report term:skip-covered

quick: setup
	@$(PY) -m pytest -q -n auto --maxprocesses 4 -m "not slow and not browser" $(QUICK)

project: setup
	@$(PY) -m pytest -q tests/project

browser:
	@$(PYTHON) tools/setup_browser.py

lint: setup
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(VENV)/bin/codespell
	@$(VENV)/bin/mypy --no-error-summary
	@out=$$($(VENV)/bin/lint-imports --no-logo --no-cache) || { echo "$$out"; exit 1; }

lint-js:  # needs Node.js: npx gets biome from the npm registry
	@npx --yes @biomejs/biome@2.6.8 lint

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
